"""Masks as a DICOM Segmentation object that refers to their source image, written by highdicom."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.io.dicom import open_dicom
from zoo.data.io.images import ImageError
from zoo.data.io.masks import RunLength, decode_masks
from zoo.data.io.segment_codes import SegmentCode, segment_code

_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""Attributes that a segmentation copies; DICOM lets them be empty, and removing them is how images are made anonymous."""
_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def write_dicom_seg(
    source: Path, masks: Sequence[RunLength], labels: Sequence[str], file: Path, question: str = ""
) -> None:
    """Write masks as binary segments, one each, into ``file``, coded in SNOMED CT by their labels, or by the question.

    Attributes of patient and study that the source lacks are empty.

    Args:
        source: the single-frame DICOM image.
        masks: of the image's size, one per segment.
        labels: of the segments; each gets its number in front and is cut to 64 characters.
        file: to write.
        question: that the masks answer, which says what they are of where a label does not.

    Raises:
        ImageError: the source is not a single-frame DICOM image, lacks an identifier, there is no mask, or highdicom is not
            installed.
    """
    try:
        import highdicom
    except ImportError as error:
        raise ImageError("DICOM SEG is written by highdicom: pip install 'medvl-zoo[dicom]'") from error
    from pydicom.uid import ExplicitVRLittleEndian

    image = open_segmentable(source)
    if not masks:
        raise ImageError(f"{source}: has no mask; a DICOM SEG needs at least one")
    pixels = decode_masks(masks, (image.Rows, image.Columns)).numpy().astype(np.uint8)
    names = enumerate(labels, start=1)
    segmentation = highdicom.seg.Segmentation(
        source_images=[image],
        pixel_array=pixels.transpose(1, 2, 0)[None],
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _segment(number, name or question, segment_code(name, question)) for number, name in names
        ],
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


def open_segmentable(source: Path) -> Any:
    """A DICOM image that a segmentation can refer to, completed by empty attributes.

    Raises:
        ImageError: it is none, has several frames, or lacks an identifier.
    """
    try:
        image = open_dicom(source)
    except ImageError as error:
        raise ImageError(f"{error}; a DICOM SEG must refer to a DICOM image") from error
    if int(image.get("NumberOfFrames") or 1) > 1:
        raise ImageError(f"{source}: has several frames; a DICOM SEG needs a single-frame image")
    if missing := [name for name in _REQUIRED if not image.get(name)]:
        raise ImageError(f"{source}: has no {', '.join(missing)}, which a DICOM SEG must refer to")
    for name in _MAY_BE_EMPTY:
        if name not in image:
            setattr(image, name, "")
    if image.PatientSex not in ("M", "F", "O"):
        image.PatientSex = ""
    if not image.get("Modality"):
        image.Modality = "OT"
    return image


def _segment(number: int, label: str, code: SegmentCode) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="medvl-zoo", version="1", family=codes.DCM.ArtificialIntelligence
    )
    segment = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"{number}: {label}"[:64],
        segmented_property_category=_coded(code.category),
        segmented_property_type=_coded(code.type),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )
    if code.side is not None:
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [_coded(code.side)]
    return segment


def _coded(concept: tuple[str, str]) -> Any:
    from highdicom.sr import CodedConcept

    value, meaning = concept
    return CodedConcept(value=value, scheme_designator="SCT", meaning=meaning)
