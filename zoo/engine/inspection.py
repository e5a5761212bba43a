"""What a data set holds, in tables and pictures: ``zoo data check``, and the part of ``zoo check`` that reads the data."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from zoo.config.building import ResolvedRecipe
from zoo.data.annotations.base import ABSENT, PRESENT, AnnotatedImage, Problems
from zoo.data.base import ZooData
from zoo.data.classification.balance import balanced_class_weights, is_balanced, positive_weights
from zoo.data.classification.base import ClassificationData
from zoo.data.conversations.annotated import box_mask
from zoo.data.io.masks import decode_masks
from zoo.data.io.tables import SPLITS
from zoo.data.traces.datasets import TraceData
from zoo.data.traces.records import IvlRecord, format_box
from zoo.decoders.evidence import EVIDENCE
from zoo.engine.assembly import build_data, with_vocabulary
from zoo.engine.data_formats import ScannedData, dataset_images, read_splits, texts_of
from zoo.engine.headers import read_sizes, sizes_of_boxes
from zoo.engine.repeats import report_repeats
from zoo.errors import counted
from zoo.pretrained import without_weights

Rows = list[dict[str, str]]
OPENED = 200
"""Images that are opened to measure sizes and mask areas, evenly over the data, unless all are."""
_FIRST = 3
"""Samples of each split that ``zoo check`` reads."""
_PICTURES, _SHOWN = 12, 10
"""Most pictures of a page, and most messages of one sort."""


@dataclass(frozen=True)
class Opened:
    """An image that was opened: its pixels (channels, height, width), and the masks (n, height, width) of its regions by label."""

    image: AnnotatedImage
    pixels: torch.Tensor
    masks: torch.Tensor
    labels: tuple[str, ...]


def open_images(scanned: ScannedData, count: int | None = OPENED) -> list[Opened]:
    """Open ``count`` images spread evenly, all if None, with their masks; what cannot be opened becomes a problem."""
    total = len(scanned.images)
    chosen = range(total) if count is None or total <= count else np.linspace(0, total - 1, count).round().astype(int)
    opened = []
    for index in chosen:
        image = scanned.images[index]
        with scanned.problems.at(image.image):
            pixels = scanned.read(image.image)
            height, width = pixels.shape[-2:]
            marked = [region for region in image.regions if region.is_marked]
            masks = []
            for region in marked:
                if region.mask is not None:
                    masks.append(decode_masks([region.mask.encode((height, width))], (height, width))[0])
                else:
                    filled = box_mask(region.boxes, (height, width), relative=region.relative)
                    masks.append(torch.from_numpy(filled).float())
            stacked = torch.stack(masks) if masks else torch.zeros(0, height, width)
            opened.append(Opened(image, pixels, stacked, tuple(region.label for region in marked)))
    scanned.problems.messages = list(
        dict.fromkeys(scanned.problems.messages)
    )  # of an unreadable file, its header's too
    return opened


def describe_data(images: Sequence[AnnotatedImage], opened: Sequence[Opened] = ()) -> dict[str, Rows]:
    """Tables of what images hold: splits, labels, regions, texts; sizes and areas are those of the opened images."""
    tables = {"images": _split_rows(images), "sizes": _size_rows(opened), "labels": _label_rows(images)}
    tables |= {"regions": _region_rows(images, opened), "texts": _text_rows(images)}
    return {title: rows for title, rows in tables.items() if rows}


def _split_rows(images: Sequence[AnnotatedImage]) -> Rows:
    by_split: dict[str, list[AnnotatedImage]] = defaultdict(list)
    for image in images:
        by_split[image.split or "no split"].append(image)
    rows = []
    for split, listed in by_split.items():
        patients = {image.patient for image in listed if image.patient}
        rows.append(
            {"split": split, "images": f"{len(listed):,}", "patients": f"{len(patients):,}" if patients else "unknown"}
        )
    return rows


def _size_rows(opened: Sequence[Opened]) -> Rows:
    sizes = Counter((item.pixels.shape[-1], item.pixels.shape[-2], item.pixels.shape[0]) for item in opened)
    return [
        {"width x height": f"{width} x {height}", "channels": str(channels), "images opened": str(count)}
        for (width, height, channels), count in sizes.most_common(8)
    ]


def _label_rows(images: Sequence[AnnotatedImage]) -> Rows:
    names = sorted({name for image in images for name in image.labels})
    rows = []
    for name in names:
        values = Counter((image.labels.get(name), image.split) for image in images)
        splits = sorted({image.split or "" for image in images}, key=lambda split: (*SPLITS, "").index(split))
        row = {"label": name}
        row |= {f"{split or 'images'}": f"{values[PRESENT, split or None]:,}" for split in splits}
        stated = sum(count for (value, _), count in values.items() if value not in (None, PRESENT, ABSENT))
        rows.append(
            row | ({"uncertain": f"{stated:,}"} if any(-1.0 in image.labels.values() for image in images) else {})
        )
    return rows


def _region_rows(images: Sequence[AnnotatedImage], opened: Sequence[Opened]) -> Rows:
    regions = Counter(region.label for image in images for region in image.regions if region.is_marked)
    areas: dict[str, list[float]] = defaultdict(list)
    for item in opened:
        for label, mask in zip(item.labels, item.masks, strict=True):
            areas[label].append(float(mask.mean()))
    rows = []
    for label, count in regions.most_common(40):
        shares = areas.get(label, [])
        if not opened:
            rows.append({"region": label, "marked": f"{count:,}"})
            continue
        empty = sum(share == 0 for share in shares)
        shown = (
            f"{100 * min(shares):.2g} to {100 * max(shares):.2g}, median {100 * median(shares):.2g}" if shares else ""
        )
        rows.append({"region": label, "marked": f"{count:,}", "per cent of the image": shown, "empty": str(empty)})
    return rows


def _text_rows(images: Sequence[AnnotatedImage]) -> Rows:
    rows = []
    kinds = {
        "reports": [image.report for image in images if image.report],
        "questions": [question for image in images for question, _ in image.questions],
        "answers": [answer for image in images for _, answer in image.questions],
    }
    for kind, texts in kinds.items():
        if texts:
            words = [len(text.split()) for text in texts]
            numbers = {
                "median words": f"{median(words):g}",
                "most words": str(max(words)),
                "distinct": f"{len(set(texts)):,}",
            }
            rows.append({"text": kind, "number": f"{len(texts):,}", **numbers})
    return rows


def write_page(title: str, problems: Problems, tables: Mapping[str, Rows], opened: Sequence[Opened], out: Path) -> Path:
    """Write ``out/data.html``: the tables, the problems, and pictures with their masks and boxes; of images with regions if there are."""
    from zoo.visualization.pages import write_data_page

    marked = [item for item in opened if len(item.masks)] or list(opened)
    chosen = [marked[index] for index in np.linspace(0, len(marked) - 1, min(_PICTURES, len(marked))).astype(int)]
    pictures = [
        {
            "pixels": item.pixels,
            "masks": item.masks,
            "names": item.labels,
            "title": str(item.image.image),
            "text": "; ".join(name for name, value in item.image.labels.items() if value == PRESENT),
        }
        for item in chosen
    ]
    file = out / "data.html"
    write_data_page(title, [*problems.messages, *problems.notes], tables, pictures, file)
    return file


@dataclass(frozen=True)
class RecipeData:
    """What ``zoo check`` found in a recipe's data."""

    tables: dict[str, Rows]
    problems: list[str]
    notes: list[str]


def inspect_recipe(resolved: ResolvedRecipe, *, quick: bool = False) -> RecipeData:
    """Read the data of a recipe: table, splits, headers of all images, classes, and lengths of texts in the method's tokens.

    Data that the zoo renders are not read, and data that are missing not either: :func:`zoo.engine.preflight.preflight` says so.

    Args:
        resolved: the recipe.
        quick: open the first images of each split alone.
    """
    problems = Problems()
    tables: dict[str, Rows] = {}
    with problems.at("data"):
        data = build_data(resolved)
        if data.is_rendered:
            return RecipeData({}, [], ["the data are rendered by the zoo, and not read here"])
        images: list[AnnotatedImage] = []

        def read(split: str) -> None:
            images.extend(dataset_images(data, split))
            _read_first(data, split)

        read_splits(problems, read, "data")
        tables = describe_data(images) | _balance_table(resolved, data, problems)
        problems.notes += _split_notes(images)
        with problems.at("data, files"):
            report_repeats(images, problems)
        if not quick:
            _check_headers(resolved, images, problems)
        if texts_of(images):
            with problems.at("data, texts"):
                tables |= _token_table(resolved, data, problems)
    return RecipeData(tables, problems.messages, problems.notes)


def _check_headers(resolved: ResolvedRecipe, images: Sequence[AnnotatedImage], problems: Problems) -> None:
    """Files that are no images, and films of several sizes where the method's boxes are in pixels."""
    sizes, unreadable = read_sizes(images)
    new = [message for message in unreadable if not any(known.endswith(message) for known in problems.messages)]
    problems.messages += new[:_SHOWN] + (
        [f"and {counted(len(new) - _SHOWN, 'more such image')}"] if len(new) > _SHOWN else []
    )
    arguments = resolved.method.arguments
    in_pixels = arguments.get("box_frame") == "pixels" and EVIDENCE[arguments.get("evidence", "crop")].box
    if in_pixels and (differ := sizes_of_boxes(images, sizes)):
        problems.note(f"{differ}, and method.box_frame: pixels has another scale for each; give it a number, as 1000")


def _balance_table(resolved: ResolvedRecipe, data: ZooData, problems: Problems) -> dict[str, Rows]:
    """What a recipe that balances classes makes of their training images."""
    is_weighted = bool(resolved.method.arguments.get("class_weights"))
    if not (is_weighted or is_balanced(data.loader)):
        return {}
    if is_weighted and is_balanced(data.loader):
        problems.note("data.sampling and method.class_weights are both balanced: rare classes count twice")
    dataset: Any = data.split("train")
    names: Sequence[str] = data.metadata()["class_names"]
    if isinstance(data, ClassificationData):
        present = functional.one_hot(torch.tensor([item.label for item in dataset.items]), len(names)).double()
        weights = balanced_class_weights(data.class_counts())
    else:
        present, weights = (dataset.targets == 1).double(), positive_weights(dataset.targets)
    drawn = (
        dataset.sample_weights if dataset.sample_weights is not None else torch.full((len(present),), 1 / len(present))
    )
    shares = drawn.double() @ present
    rows = []
    for name, count, weight, share in zip(names, present.sum(dim=0), weights, shares, strict=True):
        row = {"class": name, "training images": f"{int(count):,}", "share of the draws": f"{100 * share:.1f} %"}
        rows.append(row | ({"weight in the loss": f"{weight:.3g}"} if is_weighted else {}))
    return {"balance": rows}


def _read_first(data: ZooData, split: str) -> None:
    dataset = data.split(split)
    for index in range(min(_FIRST, len(dataset))):  # type: ignore[arg-type]
        dataset[index]


def _split_notes(images: Sequence[AnnotatedImage]) -> list[str]:
    """Splits that are empty, and labels that a split lacks."""
    by_split = {split: [image for image in images if image.split == split] for split in SPLITS}
    if not any(by_split.values()):
        return []
    notes = [f"the {split} split is empty" for split, listed in by_split.items() if not listed]
    names = {name for image in images for name, value in image.labels.items() if value == PRESENT}
    for split, listed in by_split.items():
        lacking = sorted(names - {name for image in listed for name, value in image.labels.items() if value == PRESENT})
        if listed and lacking:
            shown = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
            notes.append(f"the {split} split has no image with {shown}")
    return notes


def _token_table(resolved: ResolvedRecipe, data: ZooData, problems: Problems) -> dict[str, Rows]:
    """Lengths of traces, or of texts, in tokens of the method, and the share of them that it does not know."""
    with torch.device("meta"), without_weights():
        method = resolved.with_metadata(with_vocabulary(data.metadata(), resolved.recipe)).method.build()
    tokenizer = getattr(method, "tokenizer", None) or getattr(getattr(method, "context", None), "tokenizer", None)
    if tokenizer is None:
        problems.note("lengths are in words: the tokenizer comes with the weights, which are not read here")
        return {}
    if isinstance(data, TraceData) and hasattr(method, "writer"):
        return {"tokens": [_trace_tokens(method, tokenizer, split, data.records(split), problems) for split in SPLITS]}
    texts = [text for split in SPLITS for text in texts_of(dataset_images(data, split))]
    return {"tokens": [{"text": "all", **_lengths([tokenizer.encode(text) for text in texts], tokenizer)}]}


def _trace_tokens(
    method: Any, tokenizer: Any, split: str, records: Sequence[IvlRecord], problems: Problems
) -> dict[str, str]:
    tokens_per_image = getattr(getattr(method, "decoder", None), "tokens_per_image", 1)
    placeholder = torch.zeros(tokens_per_image, dtype=torch.long)
    sequences = []
    for record in records:
        encoded = method.writer.encode(method.with_text_boxes(record), [placeholder] * len(record.images), 10**9)
        sequences.append([] if encoded is None else encoded[0])
    long = sum(len(sequence) > method.max_tokens for sequence in sequences)
    if long:
        message = f"{long} of {len(records)} traces of {split} are longer than max_tokens={method.max_tokens}"
        problems.note(f"{message} and are {'left out' if method.too_long == 'drop' else 'shortened'}")
    steps = [step for record in records for step in record.steps]
    if without := sum(step.box is None for step in steps):
        problems.note(
            f"{without} of {len(steps)} steps of {split} have an image and no box; the sentence for one is, word for word: "
            f"{format_box((0, 0, 10, 10))}"
        )
    texts = [tokenizer.encode(text, add_special_tokens=False) for text in texts_of(_reports(records))]
    unknown = _lengths(texts, tokenizer).get("unknown", "0 %")
    if unknown not in ("0 %", "none"):
        problems.note(f"{unknown} of the tokens in the reports of {split} are unknown to the tokenizer")
    return {"split": split, **_lengths(sequences, tokenizer), "unknown": unknown}


def _reports(records: Sequence[IvlRecord]) -> list[AnnotatedImage]:
    return [AnnotatedImage(record.images[0], report=record.report) for record in records]


def _lengths(sequences: Sequence[Sequence[int]], tokenizer: Any) -> dict[str, str]:
    lengths = [len(sequence) for sequence in sequences]
    unknown_id = getattr(tokenizer, "unk_token_id", None)
    total = sum(lengths)
    unknown = sum(list(sequence).count(unknown_id) for sequence in sequences) if unknown_id is not None else 0
    share = f"{100 * unknown / max(total, 1):.2g} %" if unknown_id is not None else "none"
    if not lengths:
        return {"median": "", "longest": "", "unknown": share}
    return {"median": f"{median(lengths):g}", "longest": str(max(lengths)), "unknown": share}
