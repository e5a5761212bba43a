import pytest

from zoo.data.annotations.base import AnnotationError


def test_rows_of_one_image_are_one_mask(build):
    images = build("siim_acr").read()
    assert [image.labels["pneumothorax"] for image in images] == [1.0, 0.0] * 3
    assert len(images[0].regions) == 1 and len(images[0].regions[0].mask.texts) == 2


def test_absolute_run_lengths_are_noticed(build, tmp_path):
    source = build("siim_acr")
    table = tmp_path / "siim_acr" / "train-rle.csv"
    table.write_text(
        table.read_text() + "1.2.276.0.7230010.3.1.4.8323329.1, 500 4 600 4\n1.2.276.0.7230010.3.1.4.8323329.1,\n"
    )
    with pytest.raises(AnnotationError) as caught:
        source.read()
    assert "line 9: a run ends at pixel 1108" in str(caught.value) and "line 10" in str(caught.value)
