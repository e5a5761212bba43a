"""MIMIC-CXR-JPG (Johnson et al., arXiv 1901.07042): folders by patient and study, tables of splits, views and CheXpert labels."""

import re
from pathlib import Path
from typing import Literal

from zoo.data.annotations.base import AnnotatedImage, AnnotationError, AnnotationSource, Problems, only_file
from zoo.data.io.tables import Row, canonical_split, read_table
from zoo.errors import counted
from zoo.registry import register

CHEXPERT_LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
_KEYS = ("subject_id", "study_id")
_SECTION = re.compile(r"^\s*([A-Z][A-Z /,&-]+):", re.MULTILINE)


def label_value(text: str) -> float | None:
    """A CheXpert label: 1, 0 or -1 (uncertain); None where it is blank, which is not mentioned.

    Raises:
        ValueError: it is something else.
    """
    if not text:
        return None
    value = float(text)
    if value not in (1.0, 0.0, -1.0):
        raise AnnotationError(f"label {text} is none of 1, 0, -1 and blank")
    return value


@register("annotation_source", "mimic_cxr_jpg")
class MimicCxrJpg(AnnotationSource):
    """Radiographs with the 14 labels that CheXpert or NegBio read from their reports; a study's labels are those of its images."""

    license = "PhysioNet Credentialed Health Data License 1.5.0"
    source = "MIMIC-CXR-JPG, https://physionet.org/content/mimic-cxr-jpg/"
    limitations = "Labels were extracted from reports by rules, not by readers of the images."
    label_names = CHEXPERT_LABELS

    def __init__(
        self,
        folder: str,
        labeler: Literal["chexpert", "negbio"] = "chexpert",
        views: list[str] | None = None,
        reports: str | None = None,
    ) -> None:
        """Set the folder.

        Args:
            folder: with ``files/`` and the tables ``mimic-cxr-*-split.csv``, ``-chexpert.csv`` and ``-metadata.csv``, gzipped or not.
            labeler: whose labels are read.
            views: as ["PA", "AP"], frontal ones; images of other views are left out, none if None.
            reports: folder of MIMIC-CXR with ``files/pXX/pSUBJECT/sSTUDY.txt``, to read reports too.
        """
        self.folder, self.labeler = Path(folder), labeler
        self.views, self.reports = views, Path(reports) if reports else None

    def scan(self, problems: Problems) -> list[AnnotatedImage]:
        """See :meth:`zoo.data.annotations.base.AnnotationSource.scan`."""
        images: list[AnnotatedImage] = []
        with problems.at(self.folder):
            labels = self._labels(problems)
            views = self._views()
            left_out = 0
            table = only_file(self.folder, "mimic-cxr-*-split.csv*")
            for line, row in read_table(table, ("dicom_id", *_KEYS, "split"), report=problems.messages.append):
                if views is not None and views.get(row["dicom_id"]) not in (self.views or ()):
                    left_out += 1
                    continue
                with problems.at(f"{table}: line {line}"):
                    images.append(self._image(row, labels))
            if left_out:
                problems.note(
                    f"left out: {counted(left_out, 'image')} of other views than {', '.join(self.views or ())}"
                )
        return images

    def _labels(self, problems: Problems) -> dict[tuple[str, str], dict[str, float]]:
        table, labels = only_file(self.folder, f"mimic-cxr-*-{self.labeler}.csv*"), {}
        for line, row in read_table(table, (*_KEYS, *CHEXPERT_LABELS), report=problems.messages.append):
            with problems.at(f"{table}: line {line}"):
                values = {name: label_value(row[name]) for name in CHEXPERT_LABELS}
                stated = {name: value for name, value in values.items() if value is not None}
                labels[row["subject_id"], row["study_id"]] = stated
        return labels

    def _views(self) -> dict[str, str] | None:
        if self.views is None:
            return None
        table = only_file(self.folder, "mimic-cxr-*-metadata.csv*")
        return {row["dicom_id"]: row["ViewPosition"] for _, row in read_table(table, ("dicom_id", "ViewPosition"))}

    def _image(self, row: Row, labels: dict[tuple[str, str], dict[str, float]]) -> AnnotatedImage:
        subject, study = row["subject_id"], row["study_id"]
        split = canonical_split(row["split"])
        if split is None:
            raise AnnotationError(f"split '{row['split']}' is none of train, validate and test")
        place = Path("files", f"p{subject[:2]}", f"p{subject}", f"s{study}")
        report = self.reports / place.with_suffix(".txt") if self.reports else None
        return AnnotatedImage(
            self.folder / place / f"{row['dicom_id']}.jpg",
            split,
            subject,
            labels.get((subject, study), {}),
            report=read_sections(report.read_text(encoding="utf-8")) if report else "",
        )


def read_sections(report: str) -> str:
    """The findings and the impression of a report, in one line; the whole report if it has neither."""
    parts = _SECTION.split(report)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    chosen = [sections[name] for name in ("FINDINGS", "IMPRESSION") if name in sections] or [report]
    return " ".join(" ".join(chosen).split())
