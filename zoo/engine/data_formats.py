"""Files of any format as annotated images, with every problem in them: what ``zoo data check`` reads."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from zoo.config.building import resolve
from zoo.config.recipe import COMMAND_LINE, parse_overrides
from zoo.data.annotations.base import PRESENT, AnnotatedImage, AnnotationSource, Problems, Region
from zoo.data.annotations.datasets import AnnotatedData
from zoo.data.annotations.masks import CocoSegmentations
from zoo.data.base import ZooData
from zoo.data.classification.base import ClassificationData, DataError, LabelledImages, read_json
from zoo.data.classification.image_table import check_labels
from zoo.data.conversations.datasets import ConversationData
from zoo.data.conversations.formats import read_valid_reason_seg
from zoo.data.conversations.records import Conversation, mask_phrases, read_valid_conversations
from zoo.data.io.images import find_image_files, read_image
from zoo.data.io.tables import SPLITS, TableSpec
from zoo.data.traces.datasets import TraceData
from zoo.data.traces.records import IvlRecord, read_valid_records
from zoo.errors import ArgumentError, counted
from zoo.registry import registry

_TABLES = (".csv", ".tsv", ".txt")


@dataclass
class ScannedData:
    """What files hold.

    Attributes:
        form: the format, in words.
        images: in the order of the files.
        problems: what is wrong, each with its place; and notes on what is left out by design.
        read: reads an image (channels, height, width).
    """

    form: str
    images: list[AnnotatedImage]
    problems: Problems = field(default_factory=Problems)
    read: Callable[[Path | int], torch.Tensor] = read_image  # type: ignore[assignment]


def scan_data(name: str, settings: Sequence[str] = ()) -> ScannedData:
    """Scan a file or folder of any format, or a data set or form by its name.

    Args:
        name: a file, a folder, or a registered dataset or annotation source.
        settings: ``key=value`` arguments: of the dataset or source; of a table, the names of columns and the like; ``images``, the
            folder that paths in a JSON file are relative to.

    Raises:
        ArgumentError: the format is not known, or there is no such file.
        RecipeError: an argument is wrong.
    """
    if name in registry("annotation_source"):
        return _scan_source(name, settings)
    if name in registry("dataset"):
        data: ZooData = resolve(
            "dataset", {"name": name, **parse_overrides(list(settings))}, "data", COMMAND_LINE
        ).build()
        return scan_dataset(name, data)
    path = Path(name)
    if not path.exists():
        raise ArgumentError(f"{name}: there is no such file, data set or form; `zoo list datasets` shows the last two")
    options = parse_overrides(list(settings))
    if path.is_dir():
        return _scan_folder(path, options)
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix == ".jsonl":
        return _scan_lines(path)
    if suffix == ".json":
        return _scan_json(path, options)
    if suffix in _TABLES:
        return _scan_table(path, options)
    if suffix == ".npz":
        return _scan_source("medmnist", [f"file={path}", *settings])
    raise ArgumentError(f"{path}: its format is not known; name a dataset or form, with its arguments")


def _scan_source(name: str, settings: Sequence[str]) -> ScannedData:
    node = {"name": name, **parse_overrides(list(settings))}
    source: AnnotationSource = resolve("annotation_source", node, "annotations", COMMAND_LINE).build()
    problems = Problems()
    return ScannedData(f"form {name}", source.scan_images(problems), problems, source.read_image)


def scan_dataset(name: str, data: ZooData) -> ScannedData:
    """The images of a dataset that reads files."""
    scanned = ScannedData(f"data set {name}", [])
    if isinstance(data, AnnotatedData):
        scanned.images = data.annotations.scan_images(scanned.problems)
        scanned.read = data.annotations.read_image
        return scanned

    def read(split: str) -> None:
        scanned.images += dataset_images(data, split)

    read_splits(scanned.problems, read)
    if isinstance(data, ClassificationData):
        scanned.read = data.read
    return scanned


def read_splits(problems: Problems, read: Callable[[str], None], place: str = "") -> None:
    """Read each split. What is wrong with several, as with the table that all are read from, is reported once, not by split."""
    splits_of: dict[str, list[str]] = {}
    for split in SPLITS:
        own = Problems()
        with own.at(split):
            read(split)
        for message in own.messages:
            splits_of.setdefault(message.removeprefix(f"{split}: "), []).append(split)
    for message, splits in splits_of.items():
        where = [name for name in (place, splits[0] if len(splits) == 1 else "") if name]
        problems.messages.append(": ".join([", ".join(where), message]) if where else message)


def dataset_images(data: ZooData, split: str) -> list[AnnotatedImage]:
    """A split as annotated images; empty for a dataset of another kind.

    Raises:
        ZooError: the split cannot be read.
    """
    if isinstance(data, AnnotatedData):
        return data.images[split]
    if isinstance(data, ClassificationData):
        opened = data.split(split)
        names = data.class_names
        items = opened.items if isinstance(opened, LabelledImages) else []
        return [AnnotatedImage(i.source, split, i.patient, {names[i.label]: PRESENT}) for i in items]
    if isinstance(data, ConversationData):
        return [of_conversation(item, split) for item in data.conversations(split)]
    if isinstance(data, TraceData):
        return [of_record(record, split) for record in data.records(split)]
    return []


def of_conversation(conversation: Conversation, split: str | None = None) -> AnnotatedImage:
    """A conversation as an annotated image; the name of a mask is its target's, or its phrase in the answer, unless that is "It is"."""
    regions = []
    for turn in conversation.turns:
        phrases = mask_phrases(turn.answer, len(turn.masks))
        for index, mask in enumerate(turn.masks):
            target = turn.targets[index].name if index < len(turn.targets) else ""
            phrase = "" if phrases[index].lower() == "it is" else phrases[index]
            regions.append(Region(target or phrase or "mask", mask=CocoSegmentations((mask,))))
    questions = tuple((turn.question, turn.answer) for turn in conversation.turns)
    return AnnotatedImage(conversation.image, split, regions=tuple(regions), questions=questions)


def of_record(record: IvlRecord, split: str | None = None) -> AnnotatedImage:
    """A trace as an annotated image, a region for each step."""
    regions = tuple(
        Region(step.region, boxes=(tuple(map(float, step.box)),) if step.box else (), sentence=step.statement)  # type: ignore[arg-type]
        for step in record.steps
    )
    labels = {" ".join(filter(None, (side, kind))): PRESENT for kind, side in record.findings or ()}
    return AnnotatedImage(
        record.images[0], split, labels=labels, regions=regions, report=record.report, others=tuple(record.images[1:])
    )


def _scan_lines(path: Path) -> ScannedData:
    """Conversations or traces, by the keys of the first record."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = next((line for line in file if line.strip()), "")
    if re.search(r'"(?:prompt|response)"\s*:', first) and '"conversations"' not in first:
        records, messages = read_valid_records(path)
        steps = sum(len(record.steps) for record in records)
        images, form = [of_record(record) for record in records], f"traces, {counted(steps, 'step')}"
    else:
        conversations, messages = read_valid_conversations(path)
        turns = sum(len(conversation.turns) for conversation in conversations)
        images, form = [of_conversation(item) for item in conversations], f"conversations, {counted(turns, 'question')}"
    scanned = ScannedData(form, images)
    scanned.problems.messages += messages
    return scanned


def _scan_json(path: Path, options: Mapping[str, Any]) -> ScannedData:
    content = read_json(path)
    images = str(options.get("images", path.parent))
    if isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys():
        return _scan_source("coco_instances", [f"annotations={path}", f"images={images}"])
    if isinstance(content, dict) and set(SPLITS) <= content.keys():
        entries = [entry for split in SPLITS for entry in content[split]]
        if entries and isinstance(entries[0], dict) and "report" in entries[0]:
            return _scan_source("iu_xray", [f"annotation={path}", f"images={images}"])
        return _scan_coop(path, content, Path(images))
    raise ArgumentError(f"{path}: is neither a CoOp split nor COCO instances nor R2Gen's annotation.json")


def _scan_coop(file: Path, content: Mapping[str, Any], images: Path) -> ScannedData:
    scanned = ScannedData("CoOp split", [])
    names: dict[int, str] = {}
    for split in SPLITS:
        for number, entry in enumerate(content[split]):
            with scanned.problems.at(f"{file}: {split}[{number}]"):
                path, label, name = entry
                if type(label) is not int or not isinstance(path, str):
                    raise DataError(f"{entry!r:.200}; expected [path, label, class name]")
                if Path(path).is_absolute() or ".." in Path(path).parts:
                    raise DataError(f"'{path}' leaves the image folder")
                if names.setdefault(label, str(name)) != str(name):
                    raise DataError(f"label {label} is '{names[label]}' and '{name}'")
                scanned.images.append(AnnotatedImage(images / path, split, labels={str(name): PRESENT}))
    return _without_missing(scanned)


def _scan_table(path: Path, options: Mapping[str, Any]) -> ScannedData:
    folder = Path(str(options.get("images", path.parent)))
    spec = TableSpec(**{key: value for key, value in options.items() if key != "images"})
    scanned = ScannedData("table", [])
    with scanned.problems.at(path):
        for line, row in spec.read(path, (spec.path_column, spec.label_column), scanned.problems.messages.append):
            with scanned.problems.at(f"{path}: line {line}"):
                name, label = row[spec.path_column], row[spec.label_column]
                if not name or not label:
                    raise DataError(f"{spec.path_column} or {spec.label_column} is empty")
                split, patient = spec.split_of(row, path, line), row.get(spec.patient_column) or None
                scanned.images.append(AnnotatedImage(folder / name, split, patient, {label: PRESENT}))
        check_labels({label for image in scanned.images for label in image.labels})
        if not scanned.images and not scanned.problems.messages:
            raise DataError("has no rows")
    return _without_missing(scanned)


def _scan_folder(path: Path, options: Mapping[str, Any]) -> ScannedData:
    """ReasonSeg, images with masks, or class folders."""
    files = sorted(path.glob("*.json"))
    if files and any("shapes" in file.read_text(encoding="utf-8", errors="replace") for file in files[:3]):
        conversations, messages = read_valid_reason_seg(path)
        scanned = ScannedData("ReasonSeg", [of_conversation(item) for item in conversations])
        scanned.problems.messages += messages
        return scanned
    if (path / "images").is_dir() and (path / "masks").is_dir():
        extra = [f"{key}={json.dumps(value)}" for key, value in options.items()]
        return _scan_source("mask_images", [f"images={path / 'images'}", f"masks={path / 'masks'}", *extra])
    if next(path.rglob("*_mask*.*"), None) is not None:
        return _scan_source("mask_images", [f"images={path}", *(f"{k}={json.dumps(v)}" for k, v in options.items())])
    return _scan_image_folder(path, options)


def _scan_image_folder(path: Path, options: Mapping[str, Any]) -> ScannedData:
    """Class folders; where they cannot be divided into splits, or there are none, all images below the folder."""
    node = {"name": "image_folder", "folder": str(path), **options}
    scanned = ScannedData("data set image_folder", [])
    with scanned.problems.at(path):
        data: ZooData = resolve("dataset", node, "data", COMMAND_LINE).build()
        scanned = scan_dataset("image_folder", data)
    if scanned.images:
        return scanned
    places = [(image, image.relative_to(path).parts) for image in find_image_files(path)[0]]
    scanned.images = [AnnotatedImage(i, labels={p[0]: PRESENT} if len(p) > 1 else {}) for i, p in places]
    if places and all(len(parts) == 1 for _, parts in places):
        scanned.form = "images without labels"
        scanned.problems.notes += scanned.problems.messages
        scanned.problems.messages.clear()
    return scanned


def _without_missing(scanned: ScannedData) -> ScannedData:
    """The images whose files are there; the others are problems, as is a file in two splits or with two labels."""
    present: list[AnnotatedImage] = []
    known: dict[Path | int, AnnotatedImage] = {}
    for image in scanned.images:
        first = known.setdefault(image.image, image)
        if isinstance(image.image, Path) and not image.image.is_file():
            scanned.problems.add(image.image, "there is no such image")
        elif first is not image:
            both = "splits" if first.split != image.split else "labels" if first.labels != image.labels else "rows"
            scanned.problems.add(image.image, f"is listed twice, in two {both}")
        else:
            present.append(image)
    scanned.images = present
    return scanned


def texts_of(images: Iterable[AnnotatedImage]) -> list[str]:
    """Reports, questions and answers."""
    return [
        text
        for image in images
        for text in (image.report, *(part for pair in image.questions for part in pair))
        if text
    ]
