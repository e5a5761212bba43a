"""NEARL-CLIP (arXiv 2508.04101) as a method: USEformer and OCA on a frozen CLIP."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch

from zoo.adapters.nearl import Interaction, NearlAdapter, Ways
from zoo.adapters.oca import OrthogonalCrossAttention
from zoo.adapters.useformer import USEformer
from zoo.encoders.clip import ClipEncoder
from zoo.methods.clip_classification import TEMPLATE, ClipClassification
from zoo.pictures import draw_probabilities
from zoo.registry import Slot, Supplied, register


@register("method", "nearl_clip")
class NearlClip(ClipClassification):
    """1,458,432 trainable parameters on ViT-B/16 with the defaults; see :class:`~zoo.adapters.nearl.NearlAdapter`."""

    def __init__(
        self,
        clip: Annotated[ClipEncoder, Slot("vision_language_encoder")],
        class_names: Annotated[list[str], Supplied],
        useformer: Annotated[Callable[..., USEformer], Slot("adapter")] = USEformer,
        adapter: Annotated[Callable[..., OrthogonalCrossAttention], Slot("adapter")] = OrthogonalCrossAttention,
        template: str = TEMPLATE,
        interaction: Interaction = "instance",
        ways: Ways = "both",
    ) -> None:
        """Build; see :class:`~zoo.adapters.nearl.NearlAdapter` for the arguments."""
        wired = partial(NearlAdapter, useformer=useformer, oca=adapter, interaction=interaction, ways=ways)
        super().__init__(clip, wired, class_names, template)

    def draw_prediction(self, image: torch.Tensor, prediction: dict[str, Any], file: Path) -> None:
        """The image, where the USEformer's queries look at it (mean over layers), and bars of the probabilities."""
        adapter = self.adapter
        assert isinstance(adapter, NearlAdapter)
        attention = None
        if adapter.interaction == "instance" and adapter.useformer.mix:
            with torch.no_grad():
                attention = adapter.attention_maps(self.clip, image[None].to(self.device))[0].mean(dim=0)
        draw_probabilities(image, prediction["probabilities"], file, attention)
