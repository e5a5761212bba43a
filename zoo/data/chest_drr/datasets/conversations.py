"""chest_drr as questions that are answered in words and masks, written as records after MedSeg-QA."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from filelock import FileLock
from PIL import Image

from zoo.checksums import damaged_in, list_checksums, remove_damaged, write_checksum
from zoo.data.base import LoaderSpec
from zoo.data.chest_drr.datasets.rendered import RenderedCases
from zoo.data.chest_drr.rendering.build import CaseSeries, build_series, series_folder
from zoo.data.chest_drr.rendering.cases import SPLITS
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.chest_drr.text.contrasts import sample_contrasts
from zoo.data.chest_drr.text.phrasings import TEST, TRAIN
from zoo.data.chest_drr.text.questions import (
    sample_all_findings_question,
    sample_contralateral_question,
    sample_conversation,
)
from zoo.data.conversations.datasets import ConversationData
from zoo.data.conversations.records import Conversation, Turn, read_conversations, to_record
from zoo.files import replacing
from zoo.ranges import PositiveInt
from zoo.registry import Unpacked, register

QUESTIONS_VERSION = 7
"""Raised whenever the questions about the same case change."""
_IMAGES = "[0-9]*.png"


@register("dataset", "chest_drr_medseg_qa")
class ChestDrrMedSegQa(RenderedCases, ConversationData):
    """Rendered radiographs with explicit and implicit questions, about one finding, several, or an absent one.

    A test image with a finding on one side only has a second conversation, which asks for it on the other side; one with fewer
    than two findings has a further one, which asks for all.
    """

    def __init__(
        self,
        turns: PositiveInt = 2,
        variants: PositiveInt = 1,
        reject: bool = False,
        contrasts: bool = False,
        render: Annotated[RenderSpec, Unpacked] = RenderSpec(),
        loader: Annotated[LoaderSpec, Unpacked] = LoaderSpec(batch_size=4, eval_batch_size=16),
    ) -> None:
        """Set what is rendered and asked.

        Args:
            turns: most questions of a conversation, each of another kind.
            variants: conversations about each training image, with other questions.
            reject: answers repeat what was asked for, and hold ``[REJ]`` where it is absent; the questions stay the same.
            contrasts: every second conversation about a training image asks for present and absent findings with the same
                chance, and may end in a wrong answer (:mod:`zoo.data.chest_drr.text.contrasts`).
            render: how many radiographs are rendered, and how.
            loader: how batches are loaded; the questions do not depend on its seed.
        """
        super().__init__(loader)
        self.configure_rendering(render)
        self.turns, self.variants, self.reject, self.contrasts = turns, variants, reject, contrasts

    def conversations(self, split: str) -> list[Conversation]:
        """Render and write what the cache lacks, and read it."""
        folder = series_folder(self.spec) / f"questions-{QUESTIONS_VERSION}-{self.turns}"
        is_train = split == "train"
        variants = self.variants if is_train else 1
        options = {"reject": self.reject, "contrasts": self.contrasts and is_train}
        names = [split, str(self.counts[split]), str(variants), *(name for name, chosen in options.items() if chosen)]
        file = folder / f"{'-'.join(names)}.jsonl"
        remove_damaged([file], "questions")
        if not file.is_file():
            series = self.series(split)
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):  # another process may be writing the same
                if not file.is_file():
                    write_questions(series, split, self.turns, variants, file, **options)
        if damaged := damaged_in(folder / split, _IMAGES, "questions"):
            count = 1 + max(int(image.stem) for image in damaged)  # perhaps of a larger data set
            series = build_series(self.spec, {split: count}, self.render.render_workers)[split]
            for image in damaged:
                _write_png(series, int(image.stem), image)
            list_checksums(folder / split, _IMAGES)
        return read_conversations(file)


def write_questions(
    series: CaseSeries, split: str, turns: int, variants: int, file: Path, reject: bool = False, contrasts: bool = False
) -> None:
    """Write a series as a JSONL file, and its images as PNG files in a folder beside it."""
    from rich.progress import track

    folder = file.parent / split
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(file, durable=False) as partial, partial.open("w", encoding="utf-8") as out:
        for index in track(range(len(series)), description=f"writing {split} questions", transient=True):
            name = f"{folder.name}/{index:06d}.png"
            if not (file.parent / name).is_file():  # written with other variants before
                _write_png(series, index, file.parent / name)
            record = series.record(index)
            for conversation in _sample_conversations(record, split, index, turns, variants, reject, contrasts):
                out.write(json.dumps(to_record(Conversation(file.parent / name, conversation), name)) + "\n")
        out.flush()
        write_checksum(file, partial)


def _sample_conversations(
    record: dict[str, Any], split: str, index: int, turns: int, variants: int, reject: bool, contrasts: bool
) -> Iterator[tuple[Turn, ...]]:
    seed = [11, SPLITS.index(split), index]
    phrasing = TEST if split == "test" else TRAIN
    for variant in range(variants):
        sample = sample_contrasts if contrasts and variant % 2 else sample_conversation
        yield sample(record, phrasing, np.random.default_rng([*seed, variant]), turns, reject=reject)
    if split == "test":
        samplers = (sample_contralateral_question, sample_all_findings_question)
        for variant, sample_one in enumerate(samplers, start=variants):
            if conversation := sample_one(record, phrasing, np.random.default_rng([*seed, variant]), reject=reject):
                yield conversation


def _write_png(series: CaseSeries, index: int, path: Path) -> None:
    """Write an image of a series into a file that is there whole or not at all."""
    with replacing(path, durable=False) as partial:
        Image.fromarray((series.image(index) >> 8).astype(np.uint8)).save(partial, format="PNG")
