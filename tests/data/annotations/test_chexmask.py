import pytest

from zoo.data.annotations.base import AnnotationError, Problems


def test_masks_of_good_quality_and_of_images_that_are_here(build):
    source, problems = build("chexmask"), Problems()
    images = source.scan_images(problems)
    assert [image.image.stem for image in images] == ["film-0", "film-1", "film-2", "film-3"]
    assert [region.label for region in images[0].regions] == ["left lung", "right lung", "heart"]
    assert "1 rows of MIMIC-CXR-JPG.csv have no image" in problems.notes[0] and "below 0.7" in problems.notes[1]
    assert len(build("chexmask", min_dice=0.4).read()) == 5


def test_the_column_of_ids_may_have_another_name(build, tmp_path):
    source = build("chexmask", id_column="film")
    with pytest.raises(AnnotationError, match="has no column film; it has dicom_id"):
        source.read()
    table = tmp_path / "chexmask" / "MIMIC-CXR-JPG.csv"
    table.write_text(table.read_text().replace("dicom_id", "film"))
    assert len(source.read()) == 4
