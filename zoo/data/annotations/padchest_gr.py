"""PadChest-GR (de Castro et al., arXiv 2411.05085): reports as sentences, each with its labels and boxes."""

from pathlib import Path
from typing import Any, Literal

from zoo.data.annotations.base import (
    ABSENT,
    PRESENT,
    AnnotatedImage,
    AnnotationError,
    AnnotationSource,
    Box,
    Problems,
    Region,
    find_images,
    only_file,
)
from zoo.data.classification.base import read_json
from zoo.data.io.tables import canonical_split, read_table
from zoo.registry import register


@register("annotation_source", "padchest_gr")
class PadChestGr(AnnotationSource):
    """Radiographs with grounded reports; a label is present where a sentence affirms it, else absent."""

    license = "PadChest-GR research use agreement (BIMCV)"
    source = "PadChest-GR, https://bimcv.cipf.es/bimcv-projects/padchest-gr/"

    def __init__(self, folder: str, images: str | None = None, language: Literal["en", "es"] = "en") -> None:
        """Set the folder.

        Args:
            folder: with ``grounded_reports_*.json`` and ``master_table.csv``.
            images: folder of the images, in whatever sub-folders; ``folder`` if None.
            language: of the sentences, English or Spanish.
        """
        self.folder, self.images, self.language = Path(folder), Path(images or folder), language

    def scan(self, problems: Problems) -> list[AnnotatedImage]:
        """See :meth:`zoo.data.annotations.base.AnnotationSource.scan`."""
        images: list[AnnotatedImage] = []
        with problems.at(self.folder):
            file = only_file(self.folder, "grounded_reports_*.json")
            content = read_json(file)
            if not isinstance(content, list):
                raise AnnotationError(f"{file}: is not a list of studies")
            table, files = self._splits(problems), find_images(self.images)
            findings = [item for study in content if isinstance(study, dict) for item in study.get("findings") or ()]
            names = sorted({str(name) for item in findings for name in _labels(item)})
            for number, study in enumerate(content):
                with problems.at(f"{file}: study {number}"):
                    images.append(self._image(study, table, files, names))
        return images

    def _splits(self, problems: Problems) -> dict[str, tuple[str, str]]:
        """Split and patient by image."""
        file = self.folder / "master_table.csv"
        facts: dict[str, tuple[str, str]] = {}
        for line, row in read_table(file, ("ImageID", "PatientID", "split"), report=problems.messages.append):
            split = canonical_split(row["split"])
            if split is None:
                problems.add(f"{file}: line {line}", f"split '{row['split']}' is none of train, validation and test")
            else:
                facts[row["ImageID"]] = split, row["PatientID"]
        return facts

    def _image(
        self, study: dict[str, Any], table: dict[str, tuple[str, str]], files: dict[str, Path], names: list[str]
    ) -> AnnotatedImage:
        image_id = study["ImageID"]
        if image_id not in table:
            raise AnnotationError(f"{image_id} is not in master_table.csv")
        split, patient = table[image_id]
        regions = tuple(self._region(finding) for finding in study["findings"])
        affirmed = {name for finding in study["findings"] for name in _labels(finding)}
        return AnnotatedImage(
            files.get(Path(image_id).stem, self.images / image_id),
            split,
            patient,
            {name: PRESENT if name in affirmed else ABSENT for name in names},
            regions,
            " ".join(region.sentence for region in regions),
        )

    def _region(self, finding: dict[str, Any]) -> Region:
        sentence = str(finding[f"sentence_{self.language}"]).strip()
        boxes = tuple(_box(box) for box in finding.get("boxes") or ())
        name = ", ".join(map(str, finding.get("labels") or ())) or sentence.rstrip(".")
        return Region(name.lower(), boxes=boxes, relative=True, sentence=sentence)


def _labels(finding: dict[str, Any]) -> list[str]:
    """The labels that a sentence affirms; ``abnormal`` is missing in sentences that affirm their labels too."""
    return list(finding.get("labels") or ()) if finding.get("abnormal", True) else []


def _box(values: Any) -> Box:
    left, top, right, bottom = (float(value) for value in values)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise AnnotationError(f"the box {list(values)} is empty, or not in shares of the image from 0 to 1")
    return left, top, right, bottom
