import pytest
import torch

from zoo.data.classification.multi_label import LabelPolicy, MultiLabelImages, check_label_names
from zoo.data.classification.preparation import ImagePreparation
from zoo.errors import ArgumentError

NAN = float("nan")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (LabelPolicy(), [1, 0, NAN, 0]),
        (LabelPolicy(uncertain="present"), [1, 0, 1, 0]),
        (LabelPolicy(uncertain="absent", unstated="ignore"), [1, 0, 0, NAN]),
    ],
)
def test_uncertain_and_unstated_labels_by_policy(policy, expected):
    targets = policy.targets({"a": 1.0, "b": 0.0, "c": -1.0}, ["a", "b", "c", "d"])
    assert torch.equal(targets.nan_to_num(9), torch.tensor(expected).float().nan_to_num(9))


def test_images_of_any_shape_become_squares_of_three_channels():
    read = {"wide": torch.rand(1, 10, 20), "colour": torch.rand(3, 12, 9)}
    images = MultiLabelImages(list(read), torch.ones(2, 1), read.__getitem__, ImagePreparation(16))
    assert [images[index]["image"].shape for index in range(len(images))] == [(3, 16, 16)] * 2


def test_labels_that_no_image_has_are_refused():
    assert check_label_names([], ["a", "b"]) == ["a", "b"] and check_label_names(["b"], ["a", "b"]) == ["b"]
    with pytest.raises(ArgumentError, match="no image has the label c; there are: a"):
        check_label_names(["c"], ["a"])
    with pytest.raises(ArgumentError, match="no image has a label"):
        check_label_names([], [])
