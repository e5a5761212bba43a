"""Data sets of conversations about images with masks: from JSONL files, ReasonSeg, COCO referring expressions."""

import hashlib
from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Any, Literal

from torch.utils.data import Dataset

from zoo.data.base import Sample, ZooData, listed
from zoo.data.conversations.formats import read_reason_seg, read_referring
from zoo.data.conversations.records import Conversation, QuestionError, read_conversations
from zoo.data.io.images import read_image
from zoo.data.io.masks import decode_masks
from zoo.registry import Injected, register


class Conversations(Dataset[Sample]):
    """Conversations with their images and masks."""

    def __init__(self, conversations: list[Conversation]) -> None:
        """Keep the conversations."""
        self.conversations = conversations

    def __len__(self) -> int:
        """Number of conversations."""
        return len(self.conversations)

    def __getitem__(self, index: int) -> Sample:
        """``turns``, ``image`` (1 or 3, height, width), ``image_hash`` and ``masks`` (n, height, width) of all turns."""
        conversation = self.conversations[index]
        image = read_image(conversation.image)
        masks = tuple(mask for turn in conversation.turns for mask in turn.masks)
        height, width = image.shape[-2:]
        return {
            "turns": conversation.turns,
            "image": image,
            "image_hash": hashlib.sha256(image.numpy().tobytes()).hexdigest(),
            "masks": decode_masks(masks, (height, width)),
        }


class ConversationData(ZooData):
    """Conversations in three splits; a batch holds lists, since images differ in size and answers in masks."""

    def __init__(self, batch_size: int, eval_batch_size: int, num_workers: int, seed: int) -> None:
        """Set how samples are drawn; ``eval_batch_size`` conversations are answered at a time."""
        super().__init__(batch_size, num_workers, seed)
        self.eval_batch_size = eval_batch_size

    @abstractmethod
    def conversations(self, split: str) -> list[Conversation]:
        """Read (and, where need be, build) the conversations of a split."""

    def open_split(self, name: str) -> Dataset[Sample]:
        """The conversations with their images."""
        return Conversations(self.conversations(name))

    def collate(self, samples: list[Sample]) -> dict[str, Any]:
        """Lists of everything; turns as records."""
        return {key: listed([sample[key] for sample in samples]) for key in samples[0]}

    def eval_batch_size_of(self, split: str) -> int:
        """Conversations answered at a time; in validation, whose losses are measured, those of a step."""
        return self.batch_size if split == "val" else self.eval_batch_size


@register("dataset", "medseg_files")
class MedSegFiles(ConversationData):
    """Conversations from files: JSONL records, ReasonSeg folders, or references on COCO annotations."""

    def __init__(
        self,
        train: str,
        val: str,
        test: str,
        form: Literal["jsonl", "reason_seg"] = "jsonl",
        batch_size: int = 4,
        eval_batch_size: int = 8,
        num_workers: int = 0,
        seed: Annotated[int, Injected] = 0,
    ) -> None:
        """Name the files.

        Args:
            train: JSONL file, or folder of ReasonSeg, for training.
            val: for validation.
            test: for the test.
            form: of the files.
            batch_size: conversations a step.
            eval_batch_size: conversations answered at a time.
            num_workers: loader processes.
            seed: of the order.
        """
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        self.places, self.form = {"train": Path(train), "val": Path(val), "test": Path(test)}, form

    def conversations(self, split: str) -> list[Conversation]:
        """Read a split.

        Raises:
            QuestionError: a record does not keep to the form.
        """
        place = self.places[split]
        return read_conversations(place) if self.form == "jsonl" else read_reason_seg(place)


@register("dataset", "coco_referring")
class CocoReferring(ConversationData):
    """Referring expressions on COCO annotations, the references saved as JSON."""

    def __init__(
        self,
        instances: str,
        referring: str,
        images: str,
        batch_size: int = 4,
        eval_batch_size: int = 8,
        num_workers: int = 0,
        seed: Annotated[int, Injected] = 0,
    ) -> None:
        """Name the files; see :func:`zoo.data.conversations.formats.read_referring`.

        Args:
            instances: COCO's instances JSON.
            referring: JSON list of references.
            images: folder of images.
            batch_size: conversations a step.
            eval_batch_size: conversations answered at a time.
            num_workers: loader processes.
            seed: of the order.
        """
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        self.instances, self.referring, self.images = Path(instances), Path(referring), Path(images)

    def conversations(self, split: str) -> list[Conversation]:
        """Read a split.

        Raises:
            QuestionError: a file does not keep to the form, or has no reference of the split.
        """
        found = read_referring(self.instances, self.referring, self.images, split)
        if not found:
            raise QuestionError(f"{self.referring} has no references of the split '{split}'")
        return found
