"""Data sets of conversations about images with masks: from JSONL files, ReasonSeg, COCO referring expressions."""

import hashlib
from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Any, Literal

from torch.utils.data import Dataset

from zoo.data.base import LoaderSpec, Sample, ZooData, to_list
from zoo.data.conversations.formats import read_reason_seg, read_referring
from zoo.data.conversations.records import Conversation, QuestionError, read_conversations
from zoo.data.io.decoded import ImageReader
from zoo.data.io.images import pixel_spacing, read_image
from zoo.data.io.masks import decode_masks
from zoo.data.vocabulary import FindingVocabulary, KeywordLabeler
from zoo.registry import Unpacked, register


class Conversations(Dataset[Sample]):
    """Conversations with their images and masks."""

    def __init__(self, conversations: list[Conversation], read: ImageReader = read_image) -> None:
        """Hold the conversations, and what reads their images."""
        self.conversations, self._read = conversations, read

    def __len__(self) -> int:
        """Number of conversations."""
        return len(self.conversations)

    def __getitem__(self, index: int) -> Sample:
        """``turns``, ``image`` (1 or 3, height, width), ``image_hash``, ``masks`` (n, height, width) of all turns, and ``spacing``.

        The spacing is in millimetres from row to row and from column to column, None where it is unknown.
        """
        conversation = self.conversations[index]
        image = self._read(conversation.image)
        masks = tuple(mask for turn in conversation.turns for mask in turn.masks)
        height, width = image.shape[-2:]
        return {
            "turns": conversation.turns,
            "image": image,
            "image_hash": hashlib.sha256(image.numpy().tobytes()).hexdigest(),
            "masks": decode_masks(masks, (height, width)),
            "spacing": pixel_spacing(conversation.image),
        }


class ConversationData(ZooData):
    """Conversations in three splits; a batch holds lists, since images differ in size and answers in masks."""

    @abstractmethod
    def conversations(self, split: str) -> list[Conversation]:
        """Read the conversations of a split; build them if the cache lacks them."""

    def open_split(self, name: str) -> Dataset[Sample]:
        """The conversations with their images."""
        return Conversations(self.conversations(name), self.read_file)

    def collate(self, samples: list[Sample]) -> dict[str, Any]:
        """Collate into lists; see :func:`zoo.data.base.to_list`."""
        return {key: to_list([sample[key] for sample in samples]) for key in samples[0]}

    def eval_batch_size(self, split: str) -> int:
        """Conversations answered at a time; as in training for the validation split, whose losses are measured."""
        return self.loader.batch_size if split == "val" else super().eval_batch_size(split)


@register("dataset", "medseg_files")
class MedSegFiles(ConversationData):
    """Conversations from files: JSONL records, ReasonSeg folders, or references on COCO annotations."""

    def __init__(
        self,
        train: str,
        val: str,
        test: str,
        format: Literal["jsonl", "reason_seg"] = "jsonl",
        loader: Annotated[LoaderSpec, Unpacked] = LoaderSpec(batch_size=4, eval_batch_size=8),
    ) -> None:
        """Set the files.

        Args:
            train: JSONL file, or ReasonSeg folder, of the training split.
            val: of the validation split.
            test: of the test split.
            format: of the files.
            loader: how batches are loaded.
        """
        super().__init__(loader)
        self.paths, self.format = {"train": Path(train), "val": Path(val), "test": Path(test)}, format
        self._conversations: dict[str, list[Conversation]] = {}

    def metadata(self) -> dict[str, Any]:
        """The findings that the records name as targets, and a labeler that extracts them from answers; nothing without names.

        A region that is a target counts as a finding: the records do not distinguish the two.
        """
        conversations = [c for split, path in self.paths.items() if path.exists() for c in self.conversations(split)]
        targets = [target for c in conversations for turn in c.turns for target in turn.targets if target.finding]
        if not targets:
            return {}
        labels = tuple(sorted({(target.finding, target.side) for target in targets}))
        vocabulary = FindingVocabulary(labels, zones=tuple(sorted({target.zone for target in targets if target.zone})))
        names = {"label_names": list(vocabulary.label_names), "region_names": list(vocabulary.regions)}
        return {"vocabulary": vocabulary, "labeler": KeywordLabeler(vocabulary), **names}

    def conversations(self, split: str) -> list[Conversation]:
        """Read a split.

        Raises:
            QuestionError: a record is malformed.
        """
        if split not in self._conversations:
            read = read_conversations if self.format == "jsonl" else read_reason_seg
            self._conversations[split] = read(self.paths[split])
        return self._conversations[split]


@register("dataset", "coco_referring")
class CocoReferring(ConversationData):
    """Referring expressions on COCO annotations; the references are a JSON file."""

    def __init__(
        self,
        instances: str,
        referring: str,
        images: str,
        loader: Annotated[LoaderSpec, Unpacked] = LoaderSpec(batch_size=4, eval_batch_size=8),
    ) -> None:
        """Set the files; see :func:`zoo.data.conversations.formats.read_referring`.

        Args:
            instances: COCO's instances JSON.
            referring: JSON list of references.
            images: folder of images.
            loader: how batches are loaded.
        """
        super().__init__(loader)
        self.instances, self.referring, self.images = Path(instances), Path(referring), Path(images)

    def conversations(self, split: str) -> list[Conversation]:
        """Read a split.

        Raises:
            QuestionError: a file is malformed, or has no reference of the split.
        """
        conversations = read_referring(self.instances, self.referring, self.images, split)
        if not conversations:
            raise QuestionError(f"{self.referring} has no references of the split '{split}'")
        return conversations
