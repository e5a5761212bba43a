"""Tiny data sets in the forms that the full-size recipes read: a CoOp split, MedSeg-QA records, interleaved traces."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from zoo.data.io.masks import encode_mask

CLASSES = ("stripes", "dots", "blank_film")
_REGIONS = {"left lung": (34, 10, 60, 54), "right lung": (4, 10, 30, 54), "heart": (22, 30, 46, 56)}


def coop_split(folder: Path, *, train: int = 4, val: int = 2, test: int = 3, side: int = 64) -> Path:
    """``split.json`` beside ``images/CLASS/SPLIT_n.png``; so many images a class."""
    rng = np.random.default_rng(0)
    splits: dict[str, list[list[object]]] = {}
    for split, count in (("train", train), ("val", val), ("test", test)):
        splits[split] = []
        for label, name in enumerate(CLASSES):
            (folder / "images" / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                path = f"{name}/{split}_{index}.png"
                Image.fromarray(_film(name, rng, side)).save(folder / "images" / path)
                splits[split].append([path, label, name])
    (folder / "split.json").write_text(json.dumps(splits))
    return folder


def _film(name: str, rng: np.random.Generator, side: int) -> np.ndarray:
    image = rng.normal(60, 12, (side, side))
    if name == "stripes":
        image[:, ::4] += 150
    elif name == "dots":
        image[side // 8 : side // 2, side // 8 : side // 2] += 150
    return np.clip(image, 0, 255).astype(np.uint8)


def medseg_files(folder: Path, *, count: int = 4, side: int = 32) -> Path:
    """``data.jsonl`` of images with a bright block on one side or none; the answer says which, in a ``[SEG]`` or without."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(count):
        block = ("left", "right", "")[index % 3]
        picture, mask = np.full((side, side), 40, np.uint8), np.zeros((side, side), bool)
        if block:
            start = side // 16 if block == "left" else side // 2 + side // 16
            mask[side // 4 : 3 * side // 4, start : start + 3 * side // 8] = True
            picture[mask] = 230
        Image.fromarray(picture).save(folder / f"{index}.png")
        answer = f"On the {block} [SEG]." if block else "None."
        record = {
            "image": f"{index}.png",
            "masks": [encode_mask(mask)] if block else [],
            "targets": [{"finding": "pleural effusion", "side": block}] if block else [],
            "kinds": ["explicit" if block else "absent"],
            "conversations": [{"role": "user", "content": "Segment."}, {"role": "assistant", "content": answer}],
        }
        lines.append(json.dumps(record))
    (folder / "data.jsonl").write_text("\n".join(lines))
    return folder


def ivl_traces(folder: Path, *, count: int = 3, side: int = 64) -> Path:
    """``data.jsonl`` of traces with two steps, each with a box and the pixels in it, in MMRad-IVL-22K's form."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = []
    for index in range(count):
        film = rng.integers(0, 255, (side, side), dtype=np.uint8)
        Image.fromarray(film).save(folder / f"film_{index}.png")
        effusion, names = index % 2 == 0, [f"film_{index}.png"]
        seen = {
            "left lung": "There is a left pleural effusion." if effusion else "It is clear.",
            "heart": "It is normal.",
        }
        steps = []
        for place, (region, statement) in enumerate(seen.items()):
            left, top, right, bottom = (edge * side // 64 for edge in _REGIONS[region])
            names.append(f"film_{index}_{place}.png")
            Image.fromarray(film[top:bottom, left:right]).save(folder / names[-1])
            opening = f"{('First', 'Next')[place]}, I need to analyze the {region} <image>"
            steps.append(f"{opening} The bounding box of this area is [{left}, {top}, {right}, {bottom}] . {statement}")
        summary = "Summarizing the previous analysis, I will generate the following report:"
        report = "Left pleural effusion." if effusion else "No pleural effusion."
        record = {
            "prompt": "Write a report. <image>",
            "response": " ".join([*steps, summary, report]),
            "images": names,
        }
        lines.append(json.dumps(record))
    (folder / "data.jsonl").write_text("\n".join(lines))
    return folder


def biomedcoop_sets(root: Path, *names: str, train: int = 3, val: int = 2, test: int = 3) -> Path:
    """``SET/split_SET.json`` beside ``SET/SET/CLASS/SPLIT_n.png``, as BiomedCoOp's archives: four classes, films that are no squares."""
    rng = np.random.default_rng(0)
    for name in names:
        splits: dict[str, list[list[object]]] = {"train": [], "val": [], "test": []}
        for split, count in (("train", train), ("val", val), ("test", test)):
            for label, kind in enumerate((*CLASSES, "bright_film")):
                folder = root / name / name / kind
                folder.mkdir(parents=True, exist_ok=True)
                for index in range(count):
                    film = _film(kind, rng, 64)[:48]
                    film = np.clip(film.astype(int) + 90 * (kind == "bright_film"), 0, 255).astype(np.uint8)
                    Image.fromarray(film).save(folder / f"{split}_{index}.png")
                    splits[split].append([f"{kind}/{split}_{index}.png", label, kind])
        (root / name / f"split_{name}.json").write_text(json.dumps(splits))
    return root
