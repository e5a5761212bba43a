import pytest

from zoo.data.chest_drr.datasets.reports import ChestDrrReports
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.chest_drr.text.labels import LABELER, VOCABULARY

RENDER = RenderSpec(size=32, image_size=64, render_workers=2)


@pytest.fixture(scope="module")
def data():
    return ChestDrrReports(render=RENDER)


def test_every_rendered_dataset_has_a_vocabulary_and_a_labeler(data):
    metadata = data.metadata()
    assert metadata["vocabulary"] is VOCABULARY and metadata["labeler"] is LABELER
    assert metadata["label_names"] + metadata["region_names"] == list(VOCABULARY.target_names)
    assert data.license and data.source and data.limitations


def test_series_are_rendered_by_split(data):
    assert [len(data.series(split)) for split in ("train", "val", "test")] == [32, 64, 64]
    assert data.series("val").image(0).shape == (64, 64)


def test_example_images_outline_the_findings_of_test_cases(data):
    examples = data.example_images(12)
    records = [data.series("test").record(index) for index in range(12)]
    for example, record in zip(examples, records, strict=True):
        assert example.image.shape == (64, 64) and len(example.masks) == len(record["findings"])
        titles = example.title.split("\n")
        assert titles == ["no finding"] if not record["findings"] else len(titles) == len(example.masks)
        assert all(item["kind"] in example.title for item in record["findings"])
    assert any(example.masks for example in examples)
