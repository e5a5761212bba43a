"""Masks as a DICOM Segmentation object that refers to their source image, written by highdicom."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.valuerep import DA, TM

from zoo.data.io.dicom import open_dicom
from zoo.data.io.images import ImageError
from zoo.data.io.masks import RunLength, decode_masks
from zoo.data.io.segment_codes import SegmentCode, segment_code

_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""Attributes that a segmentation copies; DICOM lets them be empty, and removing them is how images are made anonymous."""
_DATES = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
_MISSING = re.compile(r"no attribute '(\w+)'")
_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def write_dicom_seg(
    source: Path, masks: Sequence[RunLength], labels: Sequence[str], file: Path, question: str = ""
) -> None:
    """Write masks as binary segments, one each, into ``file``, coded in SNOMED CT by their labels, or by the question.

    A mask without a pixel has no segment. Attributes of patient and study that the source lacks are empty.

    Args:
        source: the single-frame DICOM image.
        masks: of the image's size, one per segment.
        labels: of the segments; each gets its number in front and is cut to 64 characters.
        file: to write.
        question: that the masks answer, which says what they are of where a label does not.

    Raises:
        ImageError: there is no mask that has a pixel, or as :func:`check_segmentable`.
    """
    image = open_segmentable(source)
    if not masks:
        raise ImageError(f"{source}: has no mask; a DICOM SEG needs at least one")
    decoded = decode_masks(masks, (image.Rows, image.Columns)).numpy().astype(np.uint8)
    marked = [index for index, mask in enumerate(decoded) if mask.any()]
    if not marked:
        raise ImageError(f"{source}: no mask has a pixel; a DICOM SEG needs one that has")
    names = [(number, labels[index]) for number, index in enumerate(marked, start=1)]
    segments = [(number, name or question, segment_code(name, question)) for number, name in names]
    segmentation = _segmentation(source, image, decoded[marked], segments)
    file.parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(file)


def check_segmentable(source: Path) -> None:
    """Check that a segmentation can refer to an image, by making one, so that it is known before there are masks.

    Raises:
        ImageError: the source is not a single-frame DICOM image, lacks an identifier or what its kind of image must have, or
            highdicom is not installed.
    """
    image = open_segmentable(source)
    _segmentation(source, image, np.ones((1, image.Rows, image.Columns), np.uint8), [(1, "", segment_code(""))])


def _segmentation(source: Path, image: Any, masks: np.ndarray, segments: Sequence[tuple[int, str, SegmentCode]]) -> Any:
    """A segmentation of masks (n, rows, columns), each with its number, label and code."""
    try:
        import highdicom
    except ImportError as error:
        raise ImageError("DICOM SEG is written by highdicom: pip install 'medvl-zoo[dicom]'") from error
    from pydicom.uid import ExplicitVRLittleEndian

    try:
        return highdicom.seg.Segmentation(
            source_images=[image],
            pixel_array=masks.transpose(1, 2, 0)[None],
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_segment(*segment) for segment in segments],
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
    except (
        AttributeError,
        ValueError,
        KeyError,
        TypeError,
    ) as error:  # as highdicom reports what is missing or malformed
        missing = _MISSING.search(str(error))
        known = f"has no {missing[1]}, which its kind of image must have" if missing else f"{error}"
        raise ImageError(f"{source}: a DICOM SEG cannot refer to it: {known}") from error


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
    for name, kind in _DATES.items():
        if not _is_valid(kind, image.get(name)):
            setattr(image, name, "")
    if "ImagePositionPatient" in image and "SliceThickness" not in image:
        image.SliceThickness = None
    if image.PatientSex not in ("M", "F", "O"):
        image.PatientSex = ""
    if not image.get("Modality"):
        image.Modality = "OT"
    return image


def _is_valid(kind: type[Any], value: Any) -> bool:
    """Whether a date or time is one; masked ones, as 19XX0101, are not."""
    try:
        kind(value or "")
    except ValueError:
        return False
    return True


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
