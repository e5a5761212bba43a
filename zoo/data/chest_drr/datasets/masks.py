"""The images of chest_drr's questions with masks of present and absent findings: what a mask head can be pretrained on."""

from typing import Annotated, Any

import numpy as np
from pycocotools import mask as coco

from zoo.data.base import LoaderSpec
from zoo.data.chest_drr.datasets.conversations import ChestDrrMedSegQa
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.chest_drr.text.labels import LABELS
from zoo.data.chest_drr.text.questions import KINDS
from zoo.data.conversations.records import Conversation, Target, Turn
from zoo.data.io.masks import RunLength, encode_mask
from zoo.data.vocabulary import label_name
from zoo.registry import Unpacked, register


@register("dataset", "chest_drr_masks")
class ChestDrrMasks(ChestDrrMedSegQa):
    """Rendered radiographs with a mask, often empty, of every finding, and of some regions; the test split asks questions."""

    def __init__(
        self,
        render: Annotated[RenderSpec, Unpacked] = RenderSpec(),
        loader: Annotated[LoaderSpec, Unpacked] = LoaderSpec(batch_size=4, eval_batch_size=16),
    ) -> None:
        """Set what is rendered.

        Args:
            render: how many radiographs are rendered, and how.
            loader: how batches are loaded; the masks do not depend on its seed.
        """
        super().__init__(render=render, loader=loader)

    def conversations(self, split: str) -> list[Conversation]:
        """For training and validation one turn per image, without words, about findings and regions; questions for the test.

        Questions about an unaffected side, and about all findings of an image with fewer than two, are left out.
        """
        conversations = super().conversations(split)
        if split == "test":
            return [conversation for conversation in conversations if conversation.turns[0].kind in KINDS]
        series = self.series(split)
        return [
            Conversation(item.image, (sample_mask_turn(series.record(index), np.random.default_rng([12, index])),))
            for index, item in enumerate(conversations)
        ]


def sample_mask_turn(record: dict[str, Any], rng: np.random.Generator, others: int = 4) -> Turn:
    """A turn without words about a case's findings, ``others`` of the absent findings (empty masks), and as many regions.

    Trained on all targets of every image, a network learns the regions, which every image has, and misses small rare findings.
    """
    present: dict[str, list[RunLength]] = {}
    for item in record["findings"]:
        present.setdefault(label_name(item["kind"], item["side"]), []).append(item["mask"])
    masks = {
        name: parts[0] if len(parts) == 1 else encode_mask(coco.decode(parts).any(axis=2))
        for name, parts in present.items()
    }
    regions = {name: item["mask"] for name, item in record["regions"].items() if item["box"]}
    region_names = [str(name) for name in rng.choice(list(regions), others, replace=False)]
    empty = encode_mask(np.zeros(regions[region_names[0]]["size"], dtype=bool))
    findings = [label_name(*label) for label in LABELS]
    absent = rng.choice([name for name in findings if name not in present], others, replace=False)
    masks |= {str(name): empty for name in absent} | {name: regions[name] for name in region_names}
    return Turn("", "", tuple(masks.values()), tuple(map(Target, masks)))
