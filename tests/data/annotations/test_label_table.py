import pytest

from zoo.data.annotations.base import AnnotationError
from zoo.data.annotations.label_table import LabelTable


def test_present_absent_uncertain_and_not_stated(build):
    images = build("label_table").read()
    assert images[2].labels == {"effusion": -1.0} and images[0].labels == {"effusion": 1.0, "edema": 0.0}


def test_other_values_are_named_with_their_line(build, tmp_path):
    source = build("label_table")
    table = tmp_path / "label_table" / "labels.csv"
    table.write_text(table.read_text().replace("1.png,p1,train,0,1", "1.png,p1,train,yes,1"))
    with pytest.raises(AnnotationError, match="line 3: is malformed: could not convert string to float: 'yes'"):
        source.read()
    with pytest.raises(AnnotationError, match="labels is empty"):
        LabelTable("a.csv", [])
