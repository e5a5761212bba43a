"""Predictions of a card for files: read lazily, in batches, each written at once."""

import warnings
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
from zoo.data.io.masks import RunLength, encode_mask, mask_area
from zoo.engine.inputs import find_inputs, output_names, refuse_overwriting
from zoo.engine.loading import load
from zoo.engine.result_files import Format, ResultFile
from zoo.engine.trainers import check_settings, inference_trainer, is_first_process
from zoo.errors import UnsupportedError, ZooError, ZooWarning
from zoo.methods.base import ZooModule
from zoo.methods.distributed import destroy_process_group, gather_objects, is_distributed
from zoo.methods.predictions import NamedMasks, Prediction, Segmentation
from zoo.visualization.pages import write_answer_page

_PROGRESS_FROM = 3
"""Files from which on a progress bar is shown."""


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


class _Writer(Callback):
    """Writes each prediction and passes it to a callback."""

    def __init__(
        self,
        out: Path | None,
        names: dict[str, str],
        dicom_seg: bool,
        options: ImageOptions,
        results: ResultFile | None,
        format: Format,
        on_prediction: Callable[..., None],
    ) -> None:
        self._out, self._names, self._dicom_seg, self._on_prediction = out, names, dicom_seg, on_prediction
        self._options, self._results, self.format = options, results, format

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
            name = self._out / self._names[path]
            content["picture"] = str(prediction.save(name.parent, name.name, overwrite=True))
        if self._dicom_seg and self._out is not None:
            content |= self._write_dicom_seg(path, prediction, self._out / f"{self._names[path]}-seg.dcm")
        return self._line(path, content)

    def _write_dicom_seg(self, path: str, prediction: Prediction, file: Path) -> dict[str, Any]:
        """Where it was written, or why not; that nothing is segmented is an answer, and no error."""
        masks, labels, question = _segments(prediction)
        if not any(mask_area(mask) for mask in masks):
            return {"dicom_seg": None}
        try:
            write_dicom_seg(Path(path), masks, labels, file, question)
        except ZooError as error:
            return {"error": f"{path}: no DICOM SEG was written: {error}"}
        return {"dicom_seg": str(file)}

    def report(self, errors: Mapping[Path, str]) -> None:
        """Report images that are not predicted."""
        for path, error in errors.items():
            self._on_prediction(str(path), self._line(str(path), {"error": error}))

    def _line(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        if self._results is not None:
            self._results.add(path, content)
        return content


def predict_files(
    card: str,
    images: Sequence[str | Path],
    out: Path | None,
    *,
    question: str | None = None,
    dicom_seg: bool = False,
    options: ImageOptions = ImageOptions(),
    device: str = "auto",
    settings: Sequence[str] = (),
    batch_size: int = 8,
    overwrite: bool = False,
    format: Format = "jsonl",
    on_prediction: Callable[[str, dict[str, Any]], None] = lambda path, content: None,
) -> dict[str, dict[str, Any]]:
    """Predict every image with a card; a file that cannot be read is reported and skipped.

    Args:
        card: its name or folder.
        images: files, folders for all images below them, and patterns (:func:`~zoo.engine.inputs.find_inputs`).
        out: folder for figures, which mirrors the inputs' folders, and for ``predictions.jsonl`` or ``.csv``, with a line for each
            input, written at once; nothing is written if None.
        question: about every image, for a card that answers questions.
        dicom_seg: also write the masks of DICOM images as DICOM SEG; images that none can refer to are reported before the model is
            loaded, and passed over.
        options: which frame or slice of the files is read, and their depth.
        device: to predict on.
        settings: ``key=value`` overrides of the card's recipe: of the trainer, or of the source of its base.
        batch_size: of images.
        overwrite: replace the outputs of an earlier prediction; an input is never replaced.
        format: of the results: "jsonl" or "csv".
        on_prediction: called with each path and its prediction.

    Returns:
        By path, what the prediction's ``to_dict`` holds, and ``picture`` and ``dicom_seg`` where they were written; of a file
        that cannot be read, or to which no DICOM SEG can refer, and of a folder or pattern without images, ``error``.

    Raises:
        RecipeError: another setting is changed.
        CardError: the card is missing or damaged, or does not answer questions and there is one, or makes no masks for a DICOM SEG.
        QuestionError: the question is empty or too long.
        OutputExistsError: an output exists, and ``overwrite`` is off.
    """
    check_settings(settings)
    recipe = read_card(card).recipe(settings)
    _check_request(resolve_recipe(recipe).method.target, card, question, dicom_seg)
    file = None if out is None else ResultFile(out, format)
    inputs = find_inputs(images, [out, file.path, *file.written()] if out is not None and file is not None else [])
    paths, names = inputs.paths, output_names(inputs.places, out)
    if inputs.left_out:
        warnings.warn(f"left out what is no image: {_named(inputs.left_out)}", ZooWarning, stacklevel=2)
    refused = _unsegmentable(paths) if dicom_seg else {}  # before the model is loaded, and runs for hours
    method = load(card, settings=settings) if len(refused) < len(paths) else None
    if out is not None and file is not None and overwrite:
        file.remove(set(names))
    elif out is not None:
        refuse_overwriting(out, names)
    results: dict[str, dict[str, Any]] = {}

    def keep(path: str, content: dict[str, Any]) -> None:
        results[path] = content
        on_prediction(path, content)

    for name, problem in inputs.problems.items():
        keep(name, {"error": problem})
    writer = _Writer(out, names, dicom_seg, options, file, format, keep)
    if is_first_process():
        writer.report(refused)
    question = None if question is None else validate_question(question)
    files = ImageFiles([path for path in paths if path not in refused], options, question)
    was_distributed = is_distributed()
    if method is not None:
        _run(method, recipe, files, writer, device, batch_size)
    if file is not None:
        file.end()
    gathered = {path: content for part in gather_objects(results) for path, content in part.items()}
    if not was_distributed:
        destroy_process_group()
    return {name: gathered[name] for name in (*inputs.problems, *map(str, paths))}


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


def _named(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(map(str, paths[:3])) + more


def _run(method: ZooModule, recipe: Recipe, files: ImageFiles, writer: _Writer, device: str, batch_size: int) -> None:
    progress = len(files) >= _PROGRESS_FROM
    trainer = inference_trainer(recipe, device, progress=progress, callbacks=[writer])
    sampler: DistributedSampler[Any] | None = None
    if trainer.world_size > 1:
        if writer.format == "csv":
            raise UnsupportedError("CSV is written by one process; use --format jsonl with several devices")
        sampler = DistributedSampler(files, trainer.world_size, trainer.global_rank, shuffle=False)
    loader = DataLoader(files, batch_size=batch_size, sampler=sampler, collate_fn=_collate)
    trainer.predict(method, loader, return_predictions=False)


def chat(
    card: str,
    image: Path,
    next_question: Callable[[], str | None],
    *,
    out: Path | None = None,
    options: ImageOptions = ImageOptions(),
    device: str = "auto",
    settings: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Ask questions about an image one after another; each answer depends on the history.

    Args:
        card: of a method that answers questions.
        image: file of the image.
        next_question: returns the next question; None ends the conversation.
        out: folder for a page that grows with the conversation.
        options: which frame or slice of the file is read, and its depth.
        device: to answer on.
        settings: ``key=value`` overrides of the card's recipe: of the trainer, or of the source of its base.

    Yields:
        Each prediction; of a question that is refused, ``error``.

    Raises:
        CardError: the card does not answer questions.
        ImageError: the image cannot be read.
    """
    check_settings(settings)
    pixels, method = options.read(image), load(card, settings=settings)
    if not method.answers_questions:
        raise CardError(f"card '{card}' is a {type(method).__name__}, which does not answer questions")
    method.to(inference_trainer(read_card(card).recipe(settings), device, progress=False).strategy.root_device)
    page = None if out is None else out / f"{output_names({image: Path(image.name)}, out)[str(image)]}.html"
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
