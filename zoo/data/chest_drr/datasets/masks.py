"""The films of chest_drr's questions with masks of what is there and what is not: what a mask head can start from."""

from typing import Annotated, Any, Literal

import numpy as np
from pycocotools import mask as coco

from zoo.data.chest_drr.datasets.conversations import ChestDrrMedSegQa
from zoo.data.chest_drr.text.questions import FINDINGS, KINDS, called
from zoo.data.conversations.records import Conversation, Target, Turn
from zoo.data.io.masks import RunLength, encode_mask
from zoo.registry import Injected, register


@register("dataset", "chest_drr_masks")
class ChestDrrMasks(ChestDrrMedSegQa):
    """Rendered radiographs with a mask, often empty, of every finding, and of some regions; the test split asks questions."""

    def __init__(
        self,
        size: int = 2000,
        image_size: int = 256,
        style: Literal["standard", "portable"] = "standard",
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
            batch_size: films a step.
            eval_batch_size: films at a time in evaluation.
            num_workers: loader processes.
            build_workers: rendering processes; all cores if None.
            seed: of the order.
        """
        super().__init__(size, image_size, style, 2, 1, batch_size, eval_batch_size, num_workers, build_workers, seed)

    def conversations(self, split: str) -> list[Conversation]:
        """For training and validation one turn a film, without words, about findings and regions; for the test questions.

        Those about a side that has none, and about all findings of a film with fewer than two, are left out.
        """
        asked = super().conversations(split)
        if split == "test":
            return [one for one in asked if one.turns[0].kind in KINDS]
        series = self.series(split)
        return [
            Conversation(one.image, (masks_of(series.record(index), np.random.default_rng([12, index])),))
            for index, one in enumerate(asked)
        ]


def masks_of(record: dict[str, Any], rng: np.random.Generator, others: int = 4) -> Turn:
    """A turn without words about a case's findings, ``others`` of the absent findings (empty masks), and as many regions.

    Asked about everything, a network soon draws all regions, which are in every film, and never a small rare finding.
    """
    found: dict[str, list[RunLength]] = {}
    for item in record["findings"]:
        found.setdefault(called(Target(item["kind"], item["side"])), []).append(item["mask"])
    masks = {
        name: own[0] if len(own) == 1 else encode_mask(coco.decode(own).any(axis=2)) for name, own in found.items()
    }
    regions = {name: item["mask"] for name, item in record["regions"].items() if item["box"]}
    chosen = [str(name) for name in rng.choice(list(regions), others, replace=False)]
    empty = encode_mask(np.zeros(regions[chosen[0]]["size"], dtype=bool))
    absent = rng.choice([name for name in FINDINGS if name not in found], others, replace=False)
    masks |= {str(name): empty for name in absent} | {name: regions[name] for name in chosen}
    return Turn("", "", tuple(masks.values()), tuple(map(Target, masks)))
