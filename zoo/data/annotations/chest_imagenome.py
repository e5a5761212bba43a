"""Chest ImaGenome (Wu et al., arXiv 2108.00316): a scene graph for each MIMIC-CXR film, its regions with boxes and sentences."""

from collections import defaultdict
from pathlib import Path
from typing import Any

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
)
from zoo.data.classification.base import read_json
from zoo.data.io.tables import canonical_split, read_table
from zoo.registry import register

_SUFFIX = "_SceneGraph.json"
_KINDS = ("anatomicalfinding", "disease", "tubesandlines", "devices")
"""Attributes that say what an image shows."""


@register("annotation_source", "chest_imagenome")
class ChestImaGenome(AnnotationSource):
    """Radiographs with anatomical regions; a region that the report speaks of has its sentences, and their findings are labels."""

    license = "PhysioNet Credentialed Health Data License 1.5.0"
    source = "Chest ImaGenome, https://physionet.org/content/chest-imagenome/, films of MIMIC-CXR-JPG"
    limitations = "Boxes and sentences of the silver data set were found by rules and a network."

    def __init__(self, graphs: str, images: str, splits: str | None = None) -> None:
        """Set the folders.

        Args:
            graphs: ``silver_dataset/scene_graph`` with a file ``DICOM_SceneGraph.json`` for each image.
            images: folder of MIMIC-CXR-JPG's images, in whatever sub-folders.
            splits: ``silver_dataset/splits`` with ``train.csv``, ``valid.csv`` and ``test.csv``; without, patients are divided.
        """
        self.graphs, self.images, self.splits = Path(graphs), Path(images), Path(splits) if splits else None

    def scan(self, problems: Problems) -> list[AnnotatedImage]:
        """See :meth:`zoo.data.annotations.base.AnnotationSource.scan`; graphs of images that are not here are left out, and counted."""
        images: list[AnnotatedImage] = []
        absent = 0
        with problems.at(self.graphs):
            files, split_of = find_images(self.images), self._splits()
            graphs = sorted(self.graphs.glob(f"*{_SUFFIX}"))
            if not graphs:
                raise AnnotationError(f"has no file *{_SUFFIX}")
            for file in graphs:
                dicom = file.name.removesuffix(_SUFFIX)
                if dicom not in files or (split_of and dicom not in split_of):
                    absent += 1
                    continue
                with problems.at(file):
                    images.append(_image(read_json(file), files[dicom], split_of.get(dicom)))
        if absent:
            problems.note(f"{absent} scene graphs have no image below {self.images}, or no split")
        return images

    def _splits(self) -> dict[str, str]:
        split_of: dict[str, str] = {}
        for table in sorted(self.splits.glob("*.csv")) if self.splits else ():
            if split := canonical_split(table.stem):
                split_of |= {row["dicom_id"]: split for _, row in read_table(table, ("dicom_id",))}
        return split_of


def _image(graph: dict[str, Any], path: Path, split: str | None) -> AnnotatedImage:
    sentences: dict[str, list[str]] = defaultdict(list)
    order: dict[str, int] = {}
    labels: dict[str, float] = {}
    for item in graph["attributes"]:
        for index, phrase in enumerate(item["phrases"]):
            sentence = " ".join(str(phrase).split())
            sentences[str(item["bbox_name"])].append(sentence)
            order.setdefault(sentence, _position(item, index, len(order)))
            for attribute in item["attributes"][index]:
                kind, polarity, name = str(attribute).split("|")
                if kind in _KINDS:  # affirmed of one region is affirmed of the image
                    labels[name] = max(labels.get(name, ABSENT), PRESENT if polarity == "yes" else ABSENT)
    regions = tuple(
        Region(name, boxes=(_box(item),), sentence=" ".join(dict.fromkeys(sentences[name])))
        for item in graph["objects"]
        if (name := str(item["bbox_name"]))
    )
    report = " ".join(sorted(order, key=order.__getitem__))
    return AnnotatedImage(path, split, str(graph["patient_id"]), labels, regions, report)


def _position(item: dict[str, Any], index: int, default: int) -> int:
    """Where a sentence stands in its report: the number after the study in ``phrase_IDs``, as "50414267|3"."""
    ids = item.get("phrase_IDs") or []
    last = str(ids[index]).rpartition("|")[2] if index < len(ids) else ""
    return int(last) if last.isdigit() else default


def _box(item: dict[str, Any]) -> Box:
    """The box in the original image."""
    left, top, right, bottom = (float(item[f"original_{edge}"]) for edge in ("x1", "y1", "x2", "y2"))
    if not (left < right and top < bottom):
        raise AnnotationError(f"the box of {item['bbox_name']}, {[left, top, right, bottom]}, is empty")
    return left, top, right, bottom
