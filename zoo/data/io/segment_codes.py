"""SNOMED CT codes of what a mask is of, found by its words, for DICOM segmentations."""

import re
from typing import NamedTuple

ABNORMAL = ("49755003", "Morphologically Abnormal Structure")
ANATOMY = ("91723000", "Anatomical Structure")
TISSUE = ("85756007", "Tissue")
"""Categories of segments; tissue, as type too, says no more than that it is a part of the body."""

FINDINGS = {
    "pleural effusion": ("60046008", "Pleural effusion"),
    "pericardial effusion": ("373945007", "Pericardial effusion"),
    "effusion": ("41699000", "Effusion"),
    "pneumothorax": ("36118008", "Pneumothorax"),
    "pneumomediastinum": ("16838000", "Pneumomediastinum"),
    "consolidation": ("95436008", "Lung consolidation"),
    "pneumonia": ("233604007", "Pneumonia"),
    "atelectasis": ("46621007", "Atelectasis"),
    "cardiomegaly": ("8186001", "Cardiomegaly"),
    "pulmonary edema": ("19242006", "Pulmonary edema"),
    "edema": ("79654002", "Edema"),
    "emphysema": ("87433001", "Pulmonary emphysema"),
    "fibrosis": ("112674009", "Fibrosis"),
    "fracture": ("72704001", "Fracture"),
    "nodule": ("27925004", "Nodule"),
    "mass": ("4147007", "Mass"),
    "cyst": ("367643001", "Cyst"),
    "hemorrhage": ("50960005", "Hemorrhage"),
    "ulcer": ("56208002", "Ulcer"),
    "tumor": ("108369006", "Neoplasm"),
    "neoplasm": ("108369006", "Neoplasm"),
    "lesion": ("52988006", "Lesion"),
}
STRUCTURES = {
    "lung": ("39607008", "Lung"),
    "lungs": ("39607008", "Lung"),
    "hilum": ("46750007", "Hilum of lung"),
    "hilar structures": ("46750007", "Hilum of lung"),
    "heart": ("80891009", "Heart"),
    "cardiac silhouette": ("80891009", "Heart"),
    "left ventricle": ("87878005", "Left ventricle"),
    "aorta": ("15825003", "Aorta"),
    "aortic arch": ("57034009", "Aortic arch"),
    "descending aorta": ("281130003", "Descending aorta"),
    "superior vena cava": ("48345005", "Superior vena cava"),
    "pulmonary artery": ("81040000", "Pulmonary artery"),
    "mediastinum": ("72410000", "Mediastinum"),
    "trachea": ("44567001", "Trachea"),
    "carina": ("28700002", "Carina"),
    "esophagus": ("32849002", "Esophagus"),
    "diaphragm": ("5798000", "Diaphragm"),
    "hemidiaphragm": ("5798000", "Diaphragm"),
    "spine": ("421060004", "Spine"),
    "rib": ("113197003", "Rib"),
    "ribs": ("113197003", "Rib"),
    "clavicle": ("51299004", "Clavicle"),
    "scapula": ("79601000", "Scapula"),
    "sternum": ("56873002", "Sternum"),
    "abdomen": ("818981001", "Abdomen"),
    "liver": ("10200004", "Liver"),
    "spleen": ("78961009", "Spleen"),
    "stomach": ("69695003", "Stomach"),
    "pancreas": ("15776009", "Pancreas"),
    "gallbladder": ("28231008", "Gallbladder"),
    "kidney": ("64033007", "Kidney"),
    "bladder": ("89837001", "Bladder"),
    "uterus": ("35039007", "Uterus"),
    "brain": ("12738006", "Brain"),
    "breast": ("76752008", "Breast"),
    "thyroid": ("69748006", "Thyroid"),
}
"""Names in texts, each with its SNOMED CT code and meaning: those of pydicom's dictionary, which follows DICOM PS3.16, and for structures of
TotalSegmentator's published mapping too. Six findings that the dictionary lacks stand in other public tables, which the tests name."""

_SIDES = {"left": ("7771000", "Left"), "right": ("24028007", "Right")}


class SegmentCode(NamedTuple):
    """What a segment is of: category, type and side, each (SNOMED CT code, meaning); the side is None where it is not stated."""

    category: tuple[str, str]
    type: tuple[str, str]
    side: tuple[str, str] | None


def segment_code(*texts: str) -> SegmentCode:
    """The code for the first of several texts that names a finding, or else a structure, of the table; else "tissue".

    Of the names in a text the longest counts: "pleural effusion" and not "effusion". The side is that of the same text.

    Args:
        texts: in words, in the order in which they are tried: what an answer calls its mask, then what was asked for.
    """
    for text in texts:
        for category, table in ((ABNORMAL, FINDINGS), (ANATOMY, STRUCTURES)):
            names = [name for name in table if re.search(rf"\b{name}\b", text.lower())]
            if names:
                return SegmentCode(category, table[max(names, key=len)], _side(text))
    return SegmentCode(TISSUE, TISSUE, None)


def _side(text: str) -> tuple[str, str] | None:
    sides = [side for side in _SIDES if re.search(rf"\b{side}\b", text.lower())]
    return _SIDES[sides[0]] if len(sides) == 1 else None
