import pytest

from zoo.data.io.segment_codes import ABNORMAL, ANATOMY, FINDINGS, STRUCTURES, TISSUE, segment_code


@pytest.mark.parametrize(
    ("texts", "category", "meaning", "side"),
    [
        (["There is the left pleural effusion in the lower lung zone"], ABNORMAL, "Pleural effusion", "Left"),
        (["an effusion of the knee"], ABNORMAL, "Effusion", None),
        (["the right lung"], ANATOMY, "Lung", "Right"),
        (["left and right lungs"], ANATOMY, "Lung", None),
        (["the descending aorta"], ANATOMY, "Descending aorta", None),
        (["", "Segment the heart."], ANATOMY, "Heart", None),
        (["massive", "surround"], TISSUE, "Tissue", None),
    ],
)
def test_the_words_of_a_mask_have_a_code(texts, category, meaning, side):
    code = segment_code(*texts)
    assert code.category == category and code.type[1] == meaning
    assert (code.side and code.side[1]) == side


def test_codes_are_those_of_pydicom_where_it_knows_them():
    """A digit that is mistyped would be another thing altogether."""
    from pydicom.sr.codedict import codes

    known = {
        code.value: code.meaning for code in (getattr(codes.SCT, name) for name in dir(codes.SCT) if name[0].isupper())
    }
    tables = {**FINDINGS, **STRUCTURES}
    unknown = {value for value, _ in tables.values() if value not in known}
    assert unknown == {"95436008", "233604007", "46621007", "8186001", "87433001", "72704001"}
    assert {known[value] for value, _ in (ABNORMAL, ANATOMY, TISSUE)} == {
        meaning for _, meaning in (ABNORMAL, ANATOMY, TISSUE)
    }
