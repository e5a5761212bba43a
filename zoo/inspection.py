"""What ``zoo show``, ``zoo data build`` and ``zoo predict`` do."""

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from zoo.cards.store import CardError
from zoo.data.module import ZooData
from zoo.recipe import Problem, RecipeError, build, component_problems, list_recipes, read_recipe
from zoo.registry import KINDS, UnknownComponentError, nearest, registry


def facts_about(name: str) -> dict[str, Any]:
    """Everything about a component (signature, docstring, file), recipe or card.

    Raises:
        UnknownComponentError: nothing has this name; the message has the nearest ones.
    """
    from zoo.cards.store import list_cards, read_card

    for kind in KINDS:
        if name in registry(kind):
            return _component_facts(kind, name)
    if name in list_recipes() or Path(name).is_file():
        return {"recipe": name, "resolved": read_recipe(name).to_yaml()}
    if name in list_cards():
        card = read_card(name)
        return {"card": name, "folder": str(card.folder), **card.record.model_dump(mode="json")}
    names = [name for kind in KINDS for name in registry(kind)] + list_recipes() + list_cards()
    raise UnknownComponentError(f"nothing is named '{name}'{nearest(name, names)}")


def _component_facts(kind: str, name: str) -> dict[str, Any]:
    component = registry(kind).resolve(name)
    module = inspect.getmodule(component)
    return {
        kind: name,
        "python": f"from {component.__module__} import {component.__qualname__}",
        "signature": f"{component.__qualname__}{inspect.signature(component)}",
        "source": inspect.getdoc(module) if module else "",
        "description": inspect.getdoc(component),
        "arguments": inspect.getdoc(component.__init__) if inspect.isclass(component) else "",
    }


def make_dataset(name: str, settings: Sequence[str]) -> ZooData:
    """Build a dataset from ``key=value`` settings.

    Raises:
        RecipeError: no such dataset or argument.
    """
    arguments = OmegaConf.to_container(OmegaConf.from_dotlist(list(settings)))
    node = {"name": name, **arguments}  # type: ignore[dict-item]
    problems = [Problem("command line", key, message) for key, message in component_problems("dataset", node, "data")]
    if problems:
        raise RecipeError(problems)
    return build("dataset", node)


@dataclass(frozen=True)
class BuildReport:
    """How many samples each split has, and how long they took."""

    counts: dict[str, int]
    seconds: float

    @property
    def rate(self) -> float:
        """Samples a second."""
        return sum(self.counts.values()) / max(self.seconds, 1e-9)


def build_dataset(name: str, settings: Sequence[str]) -> BuildReport:
    """Prepare a dataset in the cache."""
    data = make_dataset(name, settings)
    start = time.monotonic()
    data.prepare_data()
    counts = {split: len(data.split(split)) for split in ("train", "val", "test")}  # type: ignore[arg-type]
    return BuildReport(counts, time.monotonic() - start)


def draw_dataset(name: str, out: Path, settings: Sequence[str], count: int = 12) -> Path:
    """Draw a contact sheet of the first samples of a dataset; masks of findings are outlined where it has them."""
    from zoo.pictures import contact_sheet

    if name in ("chest_drr", "chest_drr_findings"):
        pictures = _chest_drr_pictures(name, settings, count)
    else:
        samples = [make_dataset(name, settings).split("train")[index] for index in range(count)]
        pictures = [(sample["image"][0].numpy(), str(sample.get("label", "")), []) for sample in samples]
    file = out / f"{name}.png"
    images, titles, outlines = zip(*pictures, strict=True)
    contact_sheet(images, titles, outlines, file)
    return file


def _chest_drr_pictures(name: str, settings: Sequence[str], count: int) -> list[tuple[Any, str, list[Any]]]:
    from pycocotools import mask as coco

    from zoo.data.chest_drr.build import build_series

    spec = make_dataset(name, settings).spec  # type: ignore[attr-defined]
    series = build_series(spec, {"test": count})["test"]
    pictures = []
    for index in range(count):
        findings = series.record(index)["findings"]
        title = "\n".join(_said(finding) for finding in findings) or "no finding"
        masks = [coco.decode(finding["mask"]).astype(bool) for finding in findings]
        pictures.append((series.image(index), title, masks))
    return pictures


def _said(finding: dict[str, str]) -> str:
    parts = (finding["severity"], finding["lobe"] or finding["side"], finding["kind"])
    return " ".join(part for part in parts if part)


def predict_files(
    card: str,
    images: Sequence[Path],
    out: Path | None,
    *,
    ask: str | None = None,
    dicom_seg: bool = False,
    frame: int | None = None,
    axis: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Predict every image with a card; pictures go to ``out``. All images are read before the first prediction.

    Args:
        card: its name or folder.
        images: files.
        out: folder for pictures; none if None.
        ask: a question, for a card that answers questions.
        dicom_seg: write the masks of DICOM images as DICOM SEG too.
        frame: of a multi-frame DICOM.
        axis: to cut a NIfTI volume across.

    Raises:
        CardError: the card is missing or damaged, or answers no questions and one is asked.
        ImageError: an image cannot be read.
        QuestionError: the question cannot be asked.
    """
    from rich.progress import track

    from zoo.cards.load import load
    from zoo.data.dicom_seg import write_dicom_seg
    from zoo.data.images import read_image
    from zoo.data.medseg import said_of_masks

    read = {str(path): read_image(path, frame=frame, axis=axis) for path in images}
    method = load(card)
    asked = {} if ask is None else {"question": ask}
    if asked and not method.answers_questions:
        raise CardError(f"card '{card}' is a {type(method).__name__}, which answers no questions; leave --ask out")
    predictions = {}
    for path, image in track(read.items(), description="predicting", transient=True, disable=len(read) < 3):
        predictions[path] = method.predict_image(image, **asked)
        if out is not None:
            picture = out / f"{Path(path).stem}{method.picture_suffix}"
            method.draw_prediction(image, predictions[path], picture)
            predictions[path]["picture"] = str(picture)
        if dicom_seg and out is not None:
            file = out / f"{Path(path).stem}-seg.dcm"
            masks = predictions[path].get("masks", [])
            labels = said_of_masks(predictions[path].get("answer", ""), len(masks))
            write_dicom_seg(Path(path), masks, labels, file)
            predictions[path]["dicom_seg"] = str(file)
    return predictions


def chat(
    card: str, image: Path, listen: Callable[[], str | None], *, out: Path | None = None, frame: int | None = None
) -> Iterator[dict[str, Any]]:
    """Ask one question after another about an image; each answer knows those before it.

    Args:
        card: of a method that answers questions.
        image: file of the image.
        listen: gives the next question; None ends.
        out: folder for a page that grows with the conversation.
        frame: of a multi-frame DICOM.

    Yields:
        Each prediction; of a question that cannot be asked, ``error``.
    """
    from zoo.cards.load import load
    from zoo.data.images import read_image
    from zoo.data.medseg import QuestionError
    from zoo.pages import write_answer_page

    pixels, method = read_image(image, frame=frame), load(card)
    if not method.answers_questions:
        raise CardError(f"card '{card}' is a {type(method).__name__}, which answers no questions")
    turns: list[dict[str, Any]] = []
    while (question := listen()) is not None:
        try:
            so_far = [(turn["question"], turn["answer"]) for turn in turns]
            turn = method.predict_image(pixels, question=question, so_far=so_far)  # type: ignore[call-arg]
        except QuestionError as error:
            yield {"error": str(error)}
            continue
        turns.append(turn)
        if out is not None:
            write_answer_page(pixels, turns, out / f"{image.stem}.html")
        yield turn
