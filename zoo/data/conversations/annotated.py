"""Annotated images of any source as conversations: a question about each marked region, and about findings that are absent."""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from torch.utils.data import Dataset

from zoo.data.annotations.base import AnnotatedImage, AnnotationError, AnnotationSource, Box, Region
from zoo.data.annotations.datasets import AnnotatedData
from zoo.data.annotations.masks import unite
from zoo.data.base import LoaderSpec, Sample
from zoo.data.conversations.datasets import ConversationData, Conversations
from zoo.data.conversations.records import Conversation, Turn
from zoo.data.conversations.templates import QuestionTemplates, read_templates
from zoo.data.io.images import image_size
from zoo.data.io.masks import RunLength, encode_mask, mask_area
from zoo.data.vocabulary import FindingVocabulary, KeywordLabeler
from zoo.errors import ZooWarning, counted
from zoo.ranges import NonNegativeInt
from zoo.registry import Slot, Unpacked, register

Boxes = Literal["fill", "ignore"]
"""What becomes of a region that has boxes and no mask: its mask is the boxes, filled, or it is left out."""


def box_mask(boxes: Sequence[Box], size: tuple[int, int], *, relative: bool) -> np.ndarray:
    """A boolean mask (height, width) of filled boxes, cut at the border of the image.

    Args:
        boxes: in pixels, or in shares of the image if ``relative``; a pixel belongs to a box that covers half of it.
        size: height and width.
        relative: see ``boxes``.
    """
    height, width = size
    mask = np.zeros(size, dtype=bool)
    for box in boxes:
        scale = (width, height, width, height) if relative else (1, 1, 1, 1)
        left, top, right, bottom = (round(max(edge * factor, 0)) for edge, factor in zip(box, scale, strict=True))
        mask[top:bottom, left:right] = True
    return mask


def region_masks(image: AnnotatedImage, boxes: Boxes = "fill") -> list[tuple[Region, RunLength]]:
    """The regions of an image with their masks; parts of the same name, side and sentence together. A mask may be empty.

    Raises:
        AnnotationError: a mask is malformed, or has another size than the image, or the image has no file.
    """
    if not isinstance(image.image, Path):
        raise AnnotationError(f"image {image.image}: masks need image files")
    grouped: dict[tuple[str, str, str], list[Region]] = defaultdict(list)
    for region in image.regions:
        if region.mask is not None or (region.boxes and boxes == "fill"):
            grouped[region.name, region.side, region.sentence].append(region)
    if not grouped:
        return []
    size = image_size(image.image)
    return [(regions[0], unite([_encode(region, size) for region in regions], size)) for regions in grouped.values()]


def _encode(region: Region, size: tuple[int, int]) -> RunLength:
    if region.mask is not None:
        return region.mask.encode(size)
    return encode_mask(box_mask(region.boxes, size, relative=region.relative))


def to_conversation(
    image: AnnotatedImage,
    templates: QuestionTemplates,
    absent: Sequence[str],
    rng: np.random.Generator,
    boxes: Boxes = "fill",
) -> Conversation | None:
    """A conversation about an image: its regions, ``absent`` findings, and its own questions; None if there is none of them.

    Where every mask is empty, the first says that its region is absent.

    Raises:
        AnnotationError: see :func:`region_masks`.
    """
    assert isinstance(image.image, Path)
    turns: list[Turn] = []
    regions = region_masks(image, boxes)
    for region, mask in regions:
        turns += templates.turns(region, mask, rng) if mask_area(mask) else []
    if regions and not turns and not absent:
        turns.append(templates.absent_turn(regions[0][0].label, rng))
    turns += [templates.absent_turn(name, rng) for name in absent]
    turns += [Turn(question, answer) for question, answer in image.questions]
    return Conversation(image.image, tuple(turns)) if turns else None


class _Lazy(Dataset[Sample]):
    """Conversations that are made when they are asked for."""

    def __init__(self, data: "AnnotatedMasks", split: str) -> None:
        self._data, self._split = data, split

    def __len__(self) -> int:
        return len(self._data.listed[self._split])

    def __getitem__(self, index: int) -> Sample:
        return Conversations([self._data.conversation(self._split, index)], self._data.read_file)[0]


@register("dataset", "annotated_masks")
class AnnotatedMasks(AnnotatedData, ConversationData):
    """Conversations about annotated images, made of templates as they are read; masks are decoded at access."""

    def __init__(
        self,
        annotations: Annotated[AnnotationSource, Slot("annotation_source")],
        questions: str | None = None,
        boxes: Boxes = "fill",
        absent: NonNegativeInt = 0,
        loader: Annotated[LoaderSpec, Unpacked] = LoaderSpec(batch_size=4, eval_batch_size=8),
    ) -> None:
        """Set what is read.

        Args:
            annotations: the files, by the name of their form.
            questions: a file of templates (:mod:`zoo.data.conversations.templates`); "Segment the {name}." if None.
            boxes: whether a region without a mask has that of its filled boxes, or is left out.
            absent: questions about absent findings for each image, at most as many as there are.
            loader: how batches are loaded; its seed picks the templates, and divides a source without splits.
        """
        super().__init__(loader)
        self.use_source(annotations)
        self.templates = read_templates(Path(questions)) if questions else QuestionTemplates()
        self.boxes, self.absent = boxes, absent

    @cached_property
    def listed(self) -> dict[str, list[AnnotatedImage]]:
        """The images that a conversation can be about, by split; a warning counts the others."""
        listed = {split: [image for image in images if self._has_turns(image)] for split, images in self.images.items()}
        total, kept = (sum(map(len, splits.values())) for splits in (self.images, listed))
        if kept < total:
            message = f"left out, with nothing marked: {total - kept} of {counted(total, 'image')}; absent=1 asks about findings"
            warnings.warn(f"{message} that they lack (`--absent 1` of `zoo data convert`)", ZooWarning, stacklevel=2)
        return listed

    def _has_turns(self, image: AnnotatedImage) -> bool:
        marked = any(region.mask is not None or (region.boxes and self.boxes == "fill") for region in image.regions)
        return marked or bool(image.questions) or (self.absent > 0 and bool(self._absent_names(image)))

    @cached_property
    def target_labels(self) -> list[tuple[str, str]]:
        """Name and side of everything that is marked in an image, sorted."""
        regions = (region for images in self.images.values() for image in images for region in image.regions)
        return sorted({(region.name, region.side) for region in regions if region.is_marked})

    def _absent_names(self, image: AnnotatedImage) -> list[str]:
        here = {(region.name, region.side) for region in image.regions}
        vocabulary = FindingVocabulary(tuple(label for label in self.target_labels if label not in here))
        return list(vocabulary.label_names)

    def conversation(self, split: str, index: int) -> Conversation:
        """One conversation of a split, the same at each call.

        Raises:
            AnnotationError: a mask of the image is malformed.
        """
        image = self.listed[split][index]
        rng = np.random.default_rng([self.loader.seed, ("train", "val", "test").index(split), index])
        names = self._absent_names(image) if self.absent else []
        absent = [str(name) for name in rng.permutation(names)[: self.absent]]
        conversation = to_conversation(image, self.templates, absent, rng, self.boxes)
        assert conversation is not None, "listed"
        return conversation

    def conversations(self, split: str) -> list[Conversation]:
        """All conversations of a split."""
        return [self.conversation(split, index) for index in range(len(self.listed[split]))]

    def open_split(self, name: str) -> Dataset[Sample]:
        """The conversations with their images, made at access."""
        return _Lazy(self, name)

    def metadata(self) -> dict[str, Any]:
        """Everything that is marked, as findings, and a labeler that finds their names in answers."""
        vocabulary = FindingVocabulary(tuple(self.target_labels))
        names = {"label_names": list(vocabulary.label_names), "region_names": []}
        return {"vocabulary": vocabulary, "labeler": KeywordLabeler(vocabulary), **names}
