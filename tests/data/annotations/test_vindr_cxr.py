import pytest

from zoo.data.annotations.base import AnnotationError


def test_findings_by_vote_of_the_radiologists(build):
    images = {image.image.stem: image for image in build("vindr_cxr").read()}
    assert images["train0"].labels == {"No finding": 0.0, "Pleural effusion": 1.0, "Cardiomegaly": 1.0}
    assert images["train1"].labels == {"No finding": 1.0, "Pleural effusion": 0.0, "Cardiomegaly": 0.0}
    assert len(images["train0"].regions) == 2 and images["train0"].regions[1].boxes[0] == (4.0, 6.5, 20.0, 18.0)
    two = {image.image.stem: image for image in build("vindr_cxr", min_readers=2).read()}
    assert two["train0"].labels["Pleural effusion"] == 1.0 and two["train0"].labels["Cardiomegaly"] == 0.0
    assert [region.name for region in two["train0"].regions] == ["pleural effusion"]
    assert two["test1"].labels["Pleural effusion"] == 1.0, "the consensus has one voice"


def test_half_a_box_is_a_problem(build, tmp_path):
    source = build("vindr_cxr")
    table = tmp_path / "vindr_cxr" / "annotations" / "annotations_train.csv"
    table.write_text(table.read_text().replace("R8,Pleural effusion,4,", "R8,Pleural effusion,,", 1))
    with pytest.raises(AnnotationError, match=r"annotations_train\.csv: line 2: .*some of its four corners"):
        source.read()


def test_kaggles_table_of_the_training_images(build, tmp_path):
    source = build("vindr_cxr")
    folder = tmp_path / "vindr_cxr"
    (folder / "annotations" / "annotations_train.csv").rename(folder / "train.csv")
    (folder / "annotations" / "annotations_test.csv").unlink()
    assert {image.split for image in source.read()} == {"train"} and len(source.read()) == 6
