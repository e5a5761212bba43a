"""Annotated images of any source as traces: a step for each region with a sentence, and the report."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image

from zoo.checksums import remove_damaged, write_checksum
from zoo.data.annotations.base import PRESENT, AnnotatedImage, AnnotationError, AnnotationSource, Region, stated_labels
from zoo.data.annotations.datasets import AnnotatedData
from zoo.data.base import LoaderSpec
from zoo.data.io.crops import crop
from zoo.data.io.images import image_size, read_image
from zoo.data.traces.datasets import TraceData
from zoo.data.traces.pieces import text_pieces
from zoo.data.traces.records import IMAGE_PLACEHOLDER, SUMMARY, Box, IvlRecord, Step, format_box
from zoo.data.vocabulary import FindingVocabulary, KeywordLabeler
from zoo.files import replacing
from zoo.paths import cache_folder
from zoo.ranges import NonNegativeInt
from zoo.registry import Slot, Unpacked, register

PROMPT = f"Write a report for this chest radiograph. {IMAGE_PLACEHOLDER}"
Prompts = Literal["report", "question"]
"""What a trace answers: a request for a report, or the image's own question."""


def pixel_box(region: Region, size: tuple[int, int]) -> Box | None:
    """The box around all boxes of a region in whole pixels, inside an image of ``size`` (height, width); None if there is none."""
    height, width = size
    if not region.boxes:
        return None
    scale = (width, height, width, height) if region.relative else (1, 1, 1, 1)
    edges = np.array(region.boxes, dtype=float) * scale
    left, top = np.floor(edges[:, :2].min(axis=0)).clip(0)
    right, bottom = np.ceil(edges[:, 2:].max(axis=0)).clip(None, [width, height])
    return (int(left), int(top), int(right), int(bottom)) if left < right and top < bottom else None


def to_record(image: AnnotatedImage, prompt: str, folder: Path, max_steps: int, views: int = 1) -> IvlRecord:
    """The trace of an image; the evidence of a step, the pixels of its box, is written into ``folder`` unless it is there.

    Args:
        image: with a report, and regions of which those with a sentence and a box become steps.
        prompt: with one ``<image>``; it gets another for each further view.
        folder: for crops, named by their content.
        max_steps: the first steps are kept.
        views: the most images of the study that are read.

    Raises:
        AnnotationError: the image has no report, or no file.
        ImageError: the image cannot be read.
    """
    if not isinstance(image.image, Path) or not image.report:
        raise AnnotationError(f"{image.image}: has no report, or no file")
    inputs = [image.image, *image.others[: views - 1]]
    size = image_size(image.image)
    boxes = [(region, pixel_box(region, size)) for region in image.regions if region.sentence]
    kept = [(region, box) for region, box in boxes if box is not None][:max_steps]
    crops = [write_crop(image.image, box, folder) for _, box in kept]
    steps = [
        Step(
            f"{'First' if index == 0 else 'Next'}, I need to analyze the {region.label}",
            len(inputs) + index,
            box,
            _as_sentence(region.sentence),
        )
        for index, (region, box) in enumerate(kept)
    ]
    regions = {region.label: box for region in image.regions if (box := pixel_box(region, size)) is not None}
    findings = [(name.lower(), "") for name, value in image.labels.items() if value == PRESENT]
    return IvlRecord(
        prompt=prompt + f" {IMAGE_PLACEHOLDER}" * (len(inputs) - 1),
        steps=steps,
        report=image.report,
        images=[*inputs, *crops],
        findings=findings if image.labels else None,
        regions=regions,
    )


def _as_sentence(text: str) -> str:
    """A phrase with a capital and a full stop, as a statement of a trace."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def write_crop(path: Path, box: Box, folder: Path) -> Path:
    """The square around a box of an image as a PNG, named by the file's path, size and time and the box; written once."""
    stat = path.stat()
    name = hashlib.sha256(f"{path.resolve()}{stat.st_size}{stat.st_mtime_ns}{box}".encode()).hexdigest()[:20]
    file = folder / f"{name}.png"
    remove_damaged([file], "crops")
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (crop(read_image(path), box).movedim(0, -1).numpy() * 255).round().astype(np.uint8)
        with replacing(file, durable=False) as partial:
            Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(partial, format="PNG")
            write_checksum(file, partial)
    return file


def response_text(record: IvlRecord) -> str:
    """The response of a record in the format of MMRad-IVL-22K; see :mod:`zoo.data.traces.records`."""
    parts = []
    for step in record.steps:
        box = f"{format_box(step.box)} " if step.box else ""
        parts.append(f"{step.opening} {IMAGE_PLACEHOLDER} {box}{step.statement}")
    return " ".join([*parts, SUMMARY, record.report]) if parts else record.report


def _texts(image: AnnotatedImage) -> Iterator[str]:
    """What a trace of an image may say."""
    yield image.report
    yield from (f"{region.label} {region.sentence}" for region in image.regions if region.sentence)
    yield from (question for question, _ in image.questions)


def prompt_of(image: AnnotatedImage, kind: Prompts, prompt: str) -> str:
    """The request of a trace: ``prompt``, or the image's question with an ``<image>``.

    Raises:
        AnnotationError: the image has no question.
    """
    if kind == "report":
        return prompt
    if not image.questions:
        raise AnnotationError(f"{image.image}: has no question")
    return f"{image.questions[0][0]} {IMAGE_PLACEHOLDER}"


@register("dataset", "annotated_traces")
class AnnotatedTraces(AnnotatedData, TraceData):
    """Traces of annotated images; the crops of their boxes are written into the cache once."""

    def __init__(
        self,
        annotations: Annotated[AnnotationSource, Slot("annotation_source")],
        prompts: Prompts = "report",
        prompt: str = PROMPT,
        max_steps: NonNegativeInt = 8,
        views: Literal[1, 2] = 1,
        loader: Annotated[LoaderSpec, Unpacked] = LoaderSpec(batch_size=1, eval_batch_size=8),
    ) -> None:
        """Set what is read.

        Args:
            annotations: the files, by the name of their form.
            prompts: whether a trace answers a request for a report, or the question of its image.
            prompt: the request for a report, with one ``<image>``.
            max_steps: steps that are kept of a trace; 0 keeps the report alone.
            views: images of a study that are read; vision-language models take one.
            loader: how batches are loaded; its seed divides a source without splits.

        Raises:
            AnnotationError: the prompt does not have one ``<image>``.
        """
        super().__init__(loader)
        if prompt.count(IMAGE_PLACEHOLDER) != 1:
            raise AnnotationError(f"prompt is '{prompt}'; it must have one {IMAGE_PLACEHOLDER}")
        self.use_source(annotations)
        self.prompts, self.prompt, self.max_steps, self.views = prompts, prompt, max_steps, views

    def records(self, split: str) -> list[IvlRecord]:
        """The traces of the images that have a report; crops that are missing are written."""
        from rich.progress import track

        images: Sequence[AnnotatedImage] = [image for image in self.images[split] if image.report]
        folder = cache_folder() / "crops"
        return [
            to_record(image, prompt_of(image, self.prompts, self.prompt), folder, self.max_steps, self.views)
            for image in track(images, description=f"{split}: crops", transient=True)
        ]

    def metadata(self) -> dict[str, Any]:
        """The prompt; ``pieces`` of words; vocabulary and labeler of the labels that the source states."""
        listed = [image for images in self.images.values() for image in images]
        labels = tuple((name.lower(), "") for name in stated_labels(self.annotations, listed))
        texts = [text for image in listed for text in _texts(image)]
        metadata: dict[str, Any] = {"prompt": self.prompt, "pieces": text_pieces([self.prompt, SUMMARY, *texts])}
        if labels:
            vocabulary = FindingVocabulary(labels)
            metadata |= {"vocabulary": vocabulary, "labeler": KeywordLabeler(vocabulary)}
        return metadata
