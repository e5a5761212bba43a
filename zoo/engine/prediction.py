"""Predictions of a card for files: read lazily, in batches, each written at once."""

import glob
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from zoo.cards.store import CardError, read_card
from zoo.config.building import resolve_recipe
from zoo.config.recipe import Recipe
from zoo.data.base import Sample
from zoo.data.conversations.records import QuestionError, validate_question
from zoo.data.io.dicom_seg import check_segmentable, write_dicom_seg
from zoo.data.io.images import ImageError, ImageOptions, pixel_area
from zoo.data.io.masks import RunLength, encode_mask
from zoo.engine.loading import load
from zoo.engine.trainers import check_settings, inference_trainer, is_first_process
from zoo.errors import OutputExistsError, ZooError
from zoo.methods.base import ZooModule
from zoo.methods.distributed import destroy_process_group, gather_objects, is_distributed
from zoo.methods.predictions import NamedMasks, Prediction, Segmentation
from zoo.visualization.pages import write_answer_page

_PROGRESS_FROM = 3
"""Files from which on a progress bar is shown."""
RESULTS = "predictions.jsonl"
"""File in the output folder with a line for each input, written at once."""


class ImageFiles(Dataset[Sample]):
    """Images from files, read on access; an unreadable file has its ``error`` in place of its image."""

    def __init__(self, paths: Sequence[Path], options: ImageOptions, question: str | None) -> None:
        """Name the files and the question about each."""
        self.paths, self._options, self._question = list(paths), options, question

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        """``path``, ``image`` or ``error``, and ``question`` where there is one."""
        question = {} if self._question is None else {"question": self._question}
        try:
            return {"path": self.paths[index], "image": self._options.read(self.paths[index]), **question}
        except ImageError as error:
            return {"path": self.paths[index], "error": str(error)}


def _collate(samples: list[Sample]) -> dict[str, Any]:
    """Lists of the images that could be read, the paths of all as text, and the errors of the others."""
    good = [sample for sample in samples if "image" in sample]
    batch: dict[str, Any] = {
        "image": [sample["image"] for sample in good],
        "path": [str(sample["path"]) for sample in good],
        "errors": [f"{sample['error']}" for sample in samples if "error" in sample],
        "failed": [str(sample["path"]) for sample in samples if "error" in sample],
    }
    return {**batch, "question": [sample["question"] for sample in good]} if good and "question" in good[0] else batch


def output_names(paths: Sequence[Path], out: Path | None = None) -> dict[str, str]:
    """A name for each input's outputs, unique among them: its stem, with the folders before it where stems are the same.

    Where ``out`` is the folder of the input itself, the name says that it is a prediction, so that no input is overwritten.
    """
    names: dict[str, str] = {}
    stems = Counter(path.stem for path in set(paths))
    taken = {path.stem for path in paths if out is not None and path.resolve().parent == out.resolve()}
    for path in dict.fromkeys(paths):
        parts = [part for part in path.with_suffix("").parts if part not in ("/", "..", ".")]
        base = path.stem if stems[path.stem] == 1 else "-".join(parts)
        if path.stem in taken and base == path.stem:
            base += "-prediction"
        number, name = 2, base
        while name in taken:
            name, number = f"{base}-{number}", number + 1
        taken.add(name)
        names[str(path)] = name
    return names


class _Writer(Callback):
    """Writes each prediction and passes it to a callback."""

    def __init__(
        self,
        out: Path | None,
        names: dict[str, str],
        dicom_seg: bool,
        options: ImageOptions,
        on_prediction: Callable[..., None],
    ) -> None:
        self._out, self._names, self._dicom_seg, self._on_prediction = out, names, dicom_seg, on_prediction
        self._options = options

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        for path, prediction in zip(batch["path"], outputs, strict=True):
            self._on_prediction(path, self._write(path, prediction))
        for path, error in zip(batch["failed"], batch["errors"], strict=True):
            self._on_prediction(path, self._line(path, {"error": error}))

    def _write(self, path: str, prediction: Prediction) -> dict[str, Any]:
        content = prediction.to_dict()
        if isinstance(prediction, Segmentation) and (area := pixel_area(path, self._options)):
            content["areas_mm2"] = [round(pixels * area, 2) for pixels in prediction.areas]
        if self._out is not None:
            content["picture"] = str(prediction.save(self._out, self._names[path], overwrite=True))
        if self._dicom_seg and self._out is not None:
            masks, labels, question = _segments(prediction)
            file = self._out / f"{self._names[path]}-seg.dcm"
            try:
                write_dicom_seg(Path(path), masks, labels, file, question)
                content["dicom_seg"] = str(file)
            except ZooError as error:
                content["error"] = f"{path}: no DICOM SEG was written: {error}"
        return self._line(path, content)

    def report(self, errors: Mapping[Path, str]) -> None:
        """Report images that are not predicted."""
        for path, error in errors.items():
            self._on_prediction(str(path), self._line(str(path), {"error": error}))

    def _line(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        if self._out is not None:
            self._out.mkdir(parents=True, exist_ok=True)
            with (self._out / RESULTS).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"image": path, **content}) + "\n")
        return content


def predict_files(
    card: str,
    images: Sequence[Path],
    out: Path | None,
    *,
    question: str | None = None,
    dicom_seg: bool = False,
    options: ImageOptions = ImageOptions(),
    device: str = "auto",
    settings: Sequence[str] = (),
    batch_size: int = 8,
    overwrite: bool = False,
    on_prediction: Callable[[str, dict[str, Any]], None] = lambda path, content: None,
) -> dict[str, dict[str, Any]]:
    """Predict every image with a card; a file that cannot be read is reported and skipped.

    Args:
        card: its name or folder.
        images: files.
        out: folder for figures and :data:`RESULTS`; nothing is written if None.
        question: about every image, for a card that answers questions.
        dicom_seg: also write the masks of DICOM images as DICOM SEG; images that none can refer to are reported before the model is
            loaded, and passed over.
        options: which frame or slice of the files is read, and their depth.
        device: to predict on.
        settings: ``key=value`` overrides of the card's recipe: of the trainer, or of the source of its base.
        batch_size: of images.
        overwrite: replace the outputs of an earlier prediction; an input is never replaced.
        on_prediction: called with each path and its prediction.

    Returns:
        By path, what the prediction's ``to_dict`` holds, and ``picture`` and ``dicom_seg`` where they were written; of a file
        that cannot be read, or to which no DICOM SEG can refer, ``error``.

    Raises:
        RecipeError: another setting is changed.
        CardError: the card is missing or damaged, or does not answer questions and there is one, or makes no masks for a DICOM SEG.
        QuestionError: the question is empty or too long.
        OutputExistsError: an output exists, and ``overwrite`` is off.
    """
    check_settings(settings)
    recipe = read_card(card).recipe(settings)
    _check_request(resolve_recipe(recipe).method.target, card, question, dicom_seg)
    paths = list(dict.fromkeys(map(Path, images)))
    refused = _unsegmentable(paths) if dicom_seg else {}  # before the model is loaded, and runs for hours
    method = load(card, settings=settings) if len(refused) < len(paths) else None
    names = output_names(paths, out)
    if out is not None and overwrite:
        _remove_results(out / RESULTS, set(names))
    elif out is not None:
        _refuse_overwriting(out, names)
    results: dict[str, dict[str, Any]] = {}

    def keep(path: str, content: dict[str, Any]) -> None:
        results[path] = content
        on_prediction(path, content)

    writer = _Writer(out, names, dicom_seg, options, keep)
    if is_first_process():
        writer.report(refused)
    if method is None:
        return results
    files = ImageFiles([path for path in paths if path not in refused], options, question)
    was_distributed = is_distributed()
    _run(method, recipe, files, writer, device, batch_size)
    gathered = {path: content for part in gather_objects(results) for path, content in part.items()}
    if not was_distributed:
        destroy_process_group()
    return {str(path): gathered[str(path)] for path in paths}


def _check_request(method: type[ZooModule], card: str, question: str | None, dicom_seg: bool) -> None:
    if question is not None and not method.answers_questions:
        raise CardError(f"card '{card}' is a {method.__name__}, which does not answer questions; leave out --ask")
    if question is not None:
        validate_question(question)
    if dicom_seg and method.task != "image-segmentation":
        raise CardError(f"card '{card}' is a {method.__name__}, which makes no masks; leave out --dicom-seg")


def _segments(prediction: Prediction) -> tuple[list[RunLength], list[str], str]:
    """Masks that are not empty, what they are of, and the question that they answer."""
    if isinstance(prediction, NamedMasks):
        named = [(mask, name) for mask, name in zip(prediction.masks, prediction.names, strict=True) if mask.any()]
        return [encode_mask(mask.numpy() > 0) for mask, _ in named], [name for _, name in named], ""
    if isinstance(prediction, Segmentation):
        return list(prediction.masks), prediction.labels, prediction.question
    return [], [], ""


def _unsegmentable(paths: Sequence[Path]) -> dict[Path, str]:
    """The images that no DICOM SEG can refer to, and why."""
    refused = {}
    for path in paths:
        try:
            check_segmentable(path)
        except ImageError as error:
            refused[path] = str(error)
    return refused


def _run(method: ZooModule, recipe: Recipe, files: ImageFiles, writer: Callback, device: str, batch_size: int) -> None:
    progress = len(files) >= _PROGRESS_FROM
    trainer = inference_trainer(recipe, device, progress=progress, callbacks=[writer])
    sampler: DistributedSampler[Any] | None = None
    if trainer.world_size > 1:
        sampler = DistributedSampler(files, trainer.world_size, trainer.global_rank, shuffle=False)
    loader = DataLoader(files, batch_size=batch_size, sampler=sampler, collate_fn=_collate)
    trainer.predict(method, loader, return_predictions=False)


def _remove_results(file: Path, images: set[str]) -> None:
    """Remove the lines of these images from the results of earlier predictions."""
    if not file.is_file():
        return
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    partial = file.with_suffix(".partial")
    partial.write_text("".join(line for line in lines if json.loads(line)["image"] not in images), encoding="utf-8")
    partial.replace(file)


def _refuse_overwriting(out: Path, names: dict[str, str]) -> None:
    """Raise FileExistsError where the prediction for an input would overwrite a file."""
    for path, name in names.items():
        taken = [file for file in out.glob(f"{glob.escape(name)}.*") if file.suffix in (".html", ".png", ".json")]
        if taken:
            raise OutputExistsError(
                f"{taken[0]} would be overwritten by the prediction for {path}; choose another folder, or use --overwrite"
            )


def chat(
    card: str,
    image: Path,
    next_question: Callable[[], str | None],
    *,
    out: Path | None = None,
    options: ImageOptions = ImageOptions(),
    device: str = "auto",
) -> Iterator[dict[str, Any]]:
    """Ask questions about an image one after another; each answer depends on the history.

    Args:
        card: of a method that answers questions.
        image: file of the image.
        next_question: returns the next question; None ends the conversation.
        out: folder for a page that grows with the conversation.
        options: which frame or slice of the file is read, and its depth.
        device: to answer on.

    Yields:
        Each prediction; of a question that is refused, ``error``.

    Raises:
        CardError: the card does not answer questions.
        ImageError: the image cannot be read.
    """
    pixels, method = options.read(image), load(card)
    if not method.answers_questions:
        raise CardError(f"card '{card}' is a {type(method).__name__}, which does not answer questions")
    method.to(inference_trainer(read_card(card).recipe(), device, progress=False).strategy.root_device)
    page = None if out is None else out / f"{output_names([image], out)[str(image)]}.html"
    turns: list[dict[str, Any]] = []
    while (question := next_question()) is not None:
        try:
            history = [(turn["question"], turn["answer"]) for turn in turns]
            turn = method.predict_image(pixels, question=question, history=history).to_dict()
        except QuestionError as error:
            yield {"error": str(error)}
            continue
        turns.append(turn)
        if page is not None:
            write_answer_page(pixels, turns, page)
            turn = {**turn, "page": str(page)}
        yield turn
