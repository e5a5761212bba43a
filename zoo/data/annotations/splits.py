"""Images divided into train, val and test by what their data set says, and by patient where it says nothing."""

from collections.abc import Sequence

from zoo.data.annotations.base import AnnotatedImage, AnnotationError
from zoo.data.classification.base import split_by_patient
from zoo.data.io.tables import SPLITS

HELD_OUT = 0.2
"""Share of the patients that are held out for a split that a data set does not have."""


def divide(images: Sequence[AnnotatedImage], seed: int) -> dict[str, list[AnnotatedImage]]:
    """Images by split.

    Without splits, patients are divided by the seed: 20% each to val and test. A data set without val, or without test, gives
    up 20% of its training patients for it. An image whose patient is unknown is a patient of its own.

    Raises:
        AnnotationError: some images have a split and some none, or a patient is in two splits.
        DataError: there are too few patients to divide.
    """
    if len({image.split is None for image in images}) > 1:
        raise AnnotationError("some images have a split and some have none")
    divided: dict[str, list[AnnotatedImage]] = {split: [] for split in SPLITS}
    if images and images[0].split is None:
        patients = split_by_patient([_patient(image) for image in images], seed, HELD_OUT)
        split_of = {patient: split for split, members in patients.items() for patient in members}
        for image in images:
            divided[split_of[_patient(image)]].append(image)
        return divided
    for image in images:
        divided[str(image.split)].append(image)
    _check_patients(divided)
    for split in ("val", "test"):
        if not divided[split] and divided["train"]:
            held_out = split_by_patient([_patient(image) for image in divided["train"]], seed, HELD_OUT)[split]
            divided[split] = [image for image in divided["train"] if _patient(image) in held_out]
            divided["train"] = [image for image in divided["train"] if _patient(image) not in held_out]
    return divided


def _patient(image: AnnotatedImage) -> str:
    return image.patient or str(image.image)


def _check_patients(divided: dict[str, list[AnnotatedImage]]) -> None:
    splits: dict[str, str] = {}
    for split, images in divided.items():
        for patient in {image.patient for image in images if image.patient}:
            if splits.setdefault(patient, split) != split:
                raise AnnotationError(f"patient '{patient}' is in the splits '{splits[patient]}' and '{split}'")
