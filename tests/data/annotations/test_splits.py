from pathlib import Path

import pytest

from zoo.data.annotations.base import AnnotatedImage, AnnotationError
from zoo.data.annotations.splits import divide


def images(*facts):
    return [AnnotatedImage(Path(f"{index}.png"), split, patient) for index, (split, patient) in enumerate(facts)]


def patients(divided):
    return {split: {image.patient for image in listed} for split, listed in divided.items()}


def test_given_splits_are_kept():
    divided = divide(images(("train", "a"), ("val", "b"), ("test", "c"), ("train", "a")), seed=0)
    assert {split: len(listed) for split, listed in divided.items()} == {"train": 2, "val": 1, "test": 1}


def test_without_splits_whole_patients_are_divided_by_the_seed():
    listed = images(*[(None, f"p{index % 10}") for index in range(40)])
    first, again, other = divide(listed, 0), divide(listed, 0), divide(listed, 1)
    assert first == again != other
    assert [len(listed) for listed in first.values()] == [24, 8, 8]
    groups = list(patients(first).values())
    assert sum(map(len, groups)) == 10 == len(set.union(*groups))


def test_a_split_that_is_missing_is_held_out_of_training():
    listed = images(*[("train", f"p{index}") for index in range(20)], ("test", "q"))
    divided = divide(listed, 0)
    assert [len(listed) for listed in divided.values()] == [16, 4, 1]
    assert not patients(divided)["train"] & patients(divided)["val"]
    alone = divide(images(*[("train", f"p{index}") for index in range(25)]), 0)
    assert [len(listed) for listed in alone.values()] == [16, 5, 4]


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(AnnotationError, match="some images have a split and some have none"):
        divide(images(("train", "a"), (None, "b")), 0)
    with pytest.raises(AnnotationError, match="patient 'a' is in the splits 'train' and 'test'"):
        divide(images(("train", "a"), ("test", "a")), 0)
    assert divide([], 0) == {"train": [], "val": [], "test": []}
