"""Public forms as classes and as labels."""

import pytest
import torch

from tests.data.annotations.public_forms import FORMS
from zoo.config.building import resolve
from zoo.data.annotations.base import AnnotationError


def dataset(name, form, folder, **arguments):
    node = FORMS[form](folder)
    return resolve("dataset", {"name": name, "annotations": node, **arguments}).build()


def test_a_source_of_one_label_has_its_absence_as_a_class(tmp_path):
    data = dataset("annotated_classes", "rsna_pneumonia", tmp_path, image_size=32)
    assert data.class_names == ["no pneumonia", "pneumonia"] and "RSNA" in data.source
    items = [item for split in ("train", "val", "test") for item in data.split(split).items]
    assert sorted(item.label for item in items) == [0] * 5 + [1] * 5
    sample = data.split("train")[0]
    assert sample["image"].shape == (3, 32, 32) and sample["label"] == int(sample["source"][-5]) % 2 ^ 1


def test_shots_of_medmnist_are_read_from_its_file(tmp_path):
    data = dataset("annotated_classes", "medmnist", tmp_path, shots=2, image_size=28)
    assert data.class_names == ["normal", "pneumonia"] and len(data.split("train")) == 4
    assert data.split("test")[1]["image"].shape == (3, 28, 28)


def test_images_of_several_labels_are_no_classes(tmp_path):
    with pytest.raises(AnnotationError, match="has no label that is present; one class each is needed, or the dataset"):
        dataset("annotated_classes", "label_table", tmp_path).split("train")


def test_labels_of_mimic_by_policy(tmp_path):
    data = dataset(
        "annotated_labels", "mimic_cxr_jpg", tmp_path, labels=["Pleural Effusion", "No Finding"], image_size=32
    )
    assert data.metadata() == {"class_names": ["Pleural Effusion", "No Finding"]}
    targets = torch.stack([data.split("train")[index]["labels"] for index in range(4)])
    assert targets[:, 0].nan_to_num(9).tolist() == [1, 0, 9, 0] and targets[:, 1].tolist() == [0, 1, 0, 0]
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 32, 32) and batch["labels"].shape == (4, 2)


def test_all_stated_labels_are_used_in_the_order_of_the_form(tmp_path):
    data = dataset("annotated_labels", "mimic_cxr_jpg", tmp_path)
    assert data.class_names == ["No Finding", "Cardiomegaly", "Pneumothorax", "Pleural Effusion"]
