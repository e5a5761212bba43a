"""Words to SNOMED CT codes: of the right thing, none mistyped."""

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


CONFIRMED_ELSEWHERE = {
    "95436008": "Lung consolidation",  # OMOP concept 4318404; labels of INSPECT (Huo et al., arXiv 2411.09361)
    "46621007": "Atelectasis",  # labels of INSPECT
    "8186001": "Cardiomegaly",  # labels of INSPECT
    "233604007": "Pneumonia",  # "Pneumonia (disorder)" in conditions that Synthea writes, and in FHIR examples
    "87433001": "Pulmonary emphysema",  # "Pulmonary emphysema (disorder)" in FHIR examples and OMOP cohorts
    "72704001": "Fracture",  # a morphology: SNOMED International's glossary, under "concept"
}
"""Codes that pydicom's dictionary lacks, with where else they stand under the same meaning."""


def _has_check_digit(identifier: str) -> bool:
    """Whether the last digit of a SNOMED CT identifier is Verhoeff's, over the dihedral group of order ten."""

    def product(a: int, b: int) -> int:
        if a < 5:
            return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
        return 5 + (a - b) % 5 if b < 5 else (a - b) % 5

    permutation, total = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4), 0
    for position, digit in enumerate(map(int, reversed(identifier))):
        for _ in range(position % 8):
            digit = permutation[digit]
        total = product(total, digit)
    return total == 0


def test_every_code_has_its_check_digit():
    """It finds every single mistyped digit, and every two that are swapped."""
    codes = {value for value, _ in (*FINDINGS.values(), *STRUCTURES.values(), ABNORMAL, ANATOMY, TISSUE)}
    assert [code for code in codes if not _has_check_digit(code)] == [] and len(codes) > 50
    assert not any(_has_check_digit(f"7270400{digit}") for digit in (0, *range(2, 10)))
    assert not _has_check_digit("27704001")


def test_codes_are_those_of_pydicom_where_it_knows_them():
    """A digit that is mistyped would be another thing altogether."""
    from pydicom.sr.codedict import codes

    known = {
        code.value: code.meaning for code in (getattr(codes.SCT, name) for name in dir(codes.SCT) if name[0].isupper())
    }
    tables = {**FINDINGS, **STRUCTURES}
    elsewhere = {value: meaning for value, meaning in tables.values() if value not in known}
    assert elsewhere == CONFIRMED_ELSEWHERE
    assert {known[value] for value, _ in (ABNORMAL, ANATOMY, TISSUE)} == {
        meaning for _, meaning in (ABNORMAL, ANATOMY, TISSUE)
    }
