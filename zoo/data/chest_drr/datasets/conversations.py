"""chest_drr as questions that are answered in words and masks, written as files in the form of our MedSeg-QA records."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image

from zoo.data.chest_drr.datasets.rendered import RenderedCases
from zoo.data.chest_drr.rendering.build import CaseSeries, series_folder
from zoo.data.chest_drr.rendering.cases import SPLITS
from zoo.data.chest_drr.text.phrasings import TEST, TRAIN
from zoo.data.chest_drr.text.questions import conversation_on, everything_on, other_side_on
from zoo.data.conversations.datasets import ConversationData
from zoo.data.conversations.records import Conversation, Turn, read_conversations, written
from zoo.registry import Injected, register

QUESTIONS_VERSION = 7
"""Raised whenever the same case is asked other questions."""


@register("dataset", "chest_drr_medseg_qa")
class ChestDrrMedSegQa(RenderedCases, ConversationData):
    """Rendered radiographs with explicit and implicit questions, about one finding, several, or an absent one.

    A test film with a finding on one side only has a second conversation, which asks for it on the other; one with fewer than
    two findings has one more, which asks for all.
    """

    def __init__(
        self,
        size: int = 2000,
        image_size: int = 256,
        style: Literal["standard", "portable"] = "standard",
        turns: int = 2,
        variants: int = 1,
        batch_size: int = 4,
        eval_batch_size: int = 16,
        num_workers: int = 0,
        build_workers: int | None = None,
        seed: Annotated[int, Injected] = 0,
    ) -> None:
        """Choose what is rendered.

        Args:
            size: training cases; a tenth as many (at least 64) each for validation and test.
            image_size: side of the films in pixels.
            style: of the film.
            turns: most questions of a conversation, each of another kind.
            variants: conversations about each training film, with other questions.
            batch_size: conversations a step.
            eval_batch_size: conversations answered at a time.
            num_workers: loader processes.
            build_workers: rendering processes; all cores if None.
            seed: of the order; the questions themselves do not depend on it.
        """
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        self.choose(size, image_size, style, build_workers)
        self.turns, self.variants = turns, variants

    def conversations(self, split: str) -> list[Conversation]:
        """Render and write what the cache lacks, and read it."""
        folder = series_folder(self.spec) / f"questions-{QUESTIONS_VERSION}-{self.turns}"
        variants = self.variants if split == "train" else 1
        file = folder / f"{split}-{self.counts[split]}-{variants}.jsonl"
        if not file.is_file():
            write_questions(self.series(split), split, self.turns, variants, file)
        return read_conversations(file)


def write_questions(series: CaseSeries, split: str, turns: int, variants: int, file: Path) -> None:
    """Write a series as a JSONL file, and its films as PNG files in a folder beside it."""
    from rich.progress import track

    folder = file.parent / split
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    try:
        with partial.open("w", encoding="utf-8") as out:
            for index in track(range(len(series)), description=f"writing {split} questions", transient=True):
                name = f"{folder.name}/{index:06d}.png"
                Image.fromarray((series.image(index) >> 8).astype(np.uint8)).save(file.parent / name)
                for said in _conversations_on(series.record(index), split, index, turns, variants):
                    out.write(json.dumps(written(Conversation(file.parent / name, said), name)) + "\n")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _conversations_on(
    record: dict[str, Any], split: str, index: int, turns: int, variants: int
) -> Iterator[tuple[Turn, ...]]:
    seed = [11, SPLITS.index(split), index]
    wording = TEST if split == "test" else TRAIN
    for variant in range(variants):
        yield conversation_on(record, wording, np.random.default_rng([*seed, variant]), turns)
    if split == "test":
        for more, ask in enumerate((other_side_on, everything_on), start=variants):
            said = ask(record, wording, np.random.default_rng([*seed, more]))
            if said:
                yield said
