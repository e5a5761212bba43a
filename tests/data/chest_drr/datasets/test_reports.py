import pytest
import torch

from zoo.data.base import LoaderSpec
from zoo.data.chest_drr.datasets.reports import ChestDrrReports
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.chest_drr.text.labels import LABELER
from zoo.errors import ArgumentError

RENDER = RenderSpec(size=32, image_size=64, render_workers=2)


def test_reports_state_the_findings_of_their_image():
    dataset = ChestDrrReports(render=RENDER).split("val")
    for index in range(20):
        sample = dataset[index]
        assert sample["image"].shape == (1, 64, 64) and 0 <= sample["image"].min() < sample["image"].max() <= 1
        assert {finding for finding, _ in LABELER.label(sample["text"])} == set(sample["findings"])


def test_only_training_reports_vary():
    data = ChestDrrReports(render=RENDER)
    train, val = data.split("train"), data.split("val")
    torch.manual_seed(0)
    assert len({train[3]["text"] for _ in range(10)}) > 1 and len({val[3]["text"] for _ in range(10)}) == 1
    other = ChestDrrReports(render=RENDER, loader=LoaderSpec(seed=1)).split("val")
    assert [val[index]["text"] for index in range(5)] != [other[index]["text"] for index in range(5)]


def test_captions_have_claims_that_are_facts_of_their_image():
    dataset = ChestDrrReports(captions=True, render=RENDER).split("val")
    for index in range(20):
        sample = dataset[index]
        assert sample["claims"] and sample["claims"] <= sample["facts"]
    plain, augmented = (
        ChestDrrReports(captions=True, augment=augment, render=RENDER).split("train")[0]["image"]
        for augment in (False, True)
    )
    assert plain.shape == augmented.shape and not torch.equal(plain, augmented)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"findings": ["fracture"]}, r"no findings named \['fracture'\]; there are pleural effusion"),
        ({"captions": True, "severity": False}, "captions name all findings with their severities"),
        ({"augment": True}, "augment needs captions: true"),
    ],
)
def test_unusable_arguments_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        ChestDrrReports(**arguments)


def test_probes_are_of_the_chosen_findings():
    probes = ChestDrrReports(findings=["nodule"]).metadata()["probes"]
    assert list(probes) == ["nodule"] and [len(sentences) for sentences in probes["nodule"]] == [5, 2]
