"""Masks as a DICOM Segmentation object that refers to their source image, written by highdicom."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.io.images import ImageError
from zoo.data.io.masks import RunLength, decode_masks


def write_dicom_seg(source: Path, masks: Sequence[RunLength], labels: Sequence[str], file: Path) -> None:
    """Write masks as binary segments, one each, into ``file``.

    Args:
        source: the single-frame DICOM image.
        masks: of the image's size, one per segment.
        labels: of the segments; each gets its number in front and is cut to 64 characters.
        file: to write.

    Raises:
        ImageError: the source is not a single-frame DICOM image, there is no mask, or highdicom is not installed.
    """
    try:
        import highdicom
    except ImportError as error:
        raise ImageError("DICOM SEG is written by highdicom: pip install 'medvl-zoo[dicom]'") from error
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian

    try:
        image = pydicom.dcmread(source)
    except (pydicom.errors.InvalidDicomError, OSError) as error:
        raise ImageError(f"{source}: is not a DICOM file; a DICOM SEG must refer to one") from error
    if not masks or int(image.get("NumberOfFrames") or 1) > 1:
        raise ImageError(
            f"{source}: has no mask, or several frames; a DICOM SEG needs at least one mask on a single-frame image"
        )
    pixels = decode_masks(masks, (image.Rows, image.Columns)).numpy().astype(np.uint8)
    segmentation = highdicom.seg.Segmentation(
        source_images=[image],
        pixel_array=pixels.transpose(1, 2, 0)[None],
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(number, label) for number, label in enumerate(labels, start=1)],
        series_instance_uid=highdicom.UID(),
        series_number=9000,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="medvl-zoo",
        manufacturer_model_name="medvl-zoo",
        software_versions="1",
        device_serial_number="0",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(file)


def _segment(number: int, label: str) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="medvl-zoo", version="1", family=codes.DCM.ArtificialIntelligence
    )
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"{number}: {label}"[:64],
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )
