import numpy as np
import pytest
import torch

from tests.data.annotations.public_forms import medmnist
from zoo.data.annotations.base import AnnotationError
from zoo.data.annotations.medmnist import NAMES, MedMnist


def test_images_by_index_over_the_splits(tmp_path):
    source = MedMnist(medmnist(tmp_path, "pathmnist", channels=3)["file"])
    images = source.read()
    assert [image.split for image in images] == ["train"] * 6 + ["val"] * 4 + ["test"] * 4
    arrays = np.load(tmp_path / "pathmnist.npz")
    picture = source.read_image(images[7].image)
    assert picture.shape == (3, 28, 28)
    assert torch.equal((picture * 255).round().byte(), torch.from_numpy(arrays["val_images"][1]).movedim(-1, 0))
    assert images[1].labels["background"] == 1.0 and sum(images[1].labels.values()) == 1
    with pytest.raises(AnnotationError, match="has no image 99"):
        source.read_image(99)


def test_several_labels(tmp_path):
    images = MedMnist(medmnist(tmp_path, "chestmnist", labels=14)["file"]).read()
    assert len(images[0].labels) == 14 and {sum(image.labels.values()) for image in images} != {1.0}


def test_names_are_those_of_the_set_or_given(tmp_path):
    assert [len(names.split(", ")) for names in NAMES.values()] == [9, 14, 7, 4, 2, 5, 2, 8, 8, 11, 11, 11]
    node = medmnist(tmp_path, "own")
    with pytest.raises(AnnotationError, match="give class_names"):
        MedMnist(node["file"])
    assert MedMnist(node["file"], ["a", "b"]).read()[0].labels == {"a": 1.0, "b": 0.0}


def test_volumes_are_refused(tmp_path):
    np.savez(
        tmp_path / "organmnist3d.npz",
        **{
            f"{s}_{k}": np.zeros((2, 28, 28, 28) if k == "images" else (2, 1), np.uint8)
            for s in ("train", "val", "test")
            for k in ("images", "labels")
        },
    )
    with pytest.raises(AnnotationError, match=r"train_images is \(2, 28, 28, 28\) uint8; expected"):
        MedMnist(str(tmp_path / "organmnist3d.npz"), ["a", "b"]).read()
