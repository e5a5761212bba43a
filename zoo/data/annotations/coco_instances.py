"""COCO's instances (Lin et al., arXiv 1405.0312): images, categories, and annotations with polygons, run lengths or boxes."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from zoo.data.annotations.base import AnnotatedImage, AnnotationError, AnnotationSource, Problems, Region
from zoo.data.annotations.mask_images import existing_splits, in_split
from zoo.data.annotations.masks import CocoSegmentations, MaskSource
from zoo.data.classification.base import read_json
from zoo.registry import register


@register("annotation_source", "coco_instances")
class CocoInstances(AnnotationSource):
    """Images with the instances of categories; those of one category in one image are one region. Categories are labels too."""

    def __init__(self, annotations: str, images: str) -> None:
        """Set the files.

        Args:
            annotations: the JSON file; "{split}" in it stands for train, val and test.
            images: folder that its file names are relative to, with the same place for the split.
        """
        self.annotations, self.images = annotations, images

    def scan(self, problems: Problems) -> list[AnnotatedImage]:
        """See :meth:`zoo.data.annotations.base.AnnotationSource.scan`."""
        images: list[AnnotatedImage] = []
        for split in existing_splits(self.annotations):
            file = in_split(self.annotations, split)
            with problems.at(file):
                images += self._scan_file(file, in_split(self.images, split), split, problems)
        return images

    def _scan_file(self, file: Path, folder: Path, split: str | None, problems: Problems) -> list[AnnotatedImage]:
        content = read_json(file)
        categories = {item["id"]: str(item["name"]) for item in content["categories"]}
        listed = {item["id"]: item for item in content["images"]}
        annotations: dict[Any, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
        for number, item in enumerate(content["annotations"]):
            with problems.at(f"{file}: annotation {item.get('id', number) if isinstance(item, dict) else number}"):
                if item["image_id"] not in listed:
                    raise AnnotationError(f"image_id {item['image_id']} is none of the images")
                name = categories[item["category_id"]]
                size = listed[item["image_id"]]["height"], listed[item["image_id"]]["width"]
                if item.get("segmentation"):
                    CocoSegmentations((item["segmentation"],)).encode(size)
                annotations[item["image_id"]][name].append(item)
        images = []
        for image_id, item in listed.items():
            path = Path(str(item["file_name"]))
            if path.is_absolute() or ".." in path.parts:
                problems.add(f"{file}: image {image_id}", f"'{path}' leaves the image folder")
                continue
            regions = tuple(_region(name, items) for name, items in annotations[image_id].items())
            labels = {name: float(name in annotations[image_id]) for name in categories.values()}
            images.append(AnnotatedImage(folder / path, split, labels=labels, regions=regions))
        return images


def _region(name: str, items: list[dict[str, Any]]) -> Region:
    """The instances of a category: a mask where all have a segmentation, and their boxes [x, y, width, height]."""
    segmentations = tuple(item["segmentation"] for item in items if item.get("segmentation"))
    mask: MaskSource | None = CocoSegmentations(segmentations) if len(segmentations) == len(items) else None
    boxes = [item["bbox"] for item in items if item.get("bbox")]
    return Region(name, boxes=tuple((x, y, x + width, y + height) for x, y, width, height in boxes), mask=mask)
