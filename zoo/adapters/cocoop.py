"""CoCoOp (Zhou et al., arXiv 2203.05557): context vectors that a small network shifts for each image."""

import torch
from torch import nn

from zoo.adapters.coop import CoOp
from zoo.adapters.few_shot import Classes, Clip
from zoo.encoders.clip import ClipEncoder
from zoo.ranges import PositiveInt
from zoo.registry import register


@register("adapter", "cocoop")
class CoCoOp(CoOp):
    """``v_m(x) = v_m + h(f(x))``: the context of an image x is CoOp's, shifted by a bottleneck h of its unit feature f(x).

    Every image has class embeddings of its own, so a step costs batch x classes passes through the text tower. The official
    recipe, cocoop/official, has batches of one image.
    """

    def __init__(
        self,
        clip: Clip,
        classes: Classes,
        context: PositiveInt = 4,
        context_init: str | None = "a photo of a",
        reduction: PositiveInt = 16,
    ) -> None:
        """Build.

        Args:
            clip: gives the widths and the tokenizer.
            classes: whose names follow the context.
            context: number of context vectors, where ``context_init`` is None.
            context_init: words whose embeddings the context starts from; None samples from N(0, 0.02^2).
            reduction: the bottleneck of h is the embedding's width over it.
        """
        super().__init__(clip, classes, context, context_init)
        inner = max(clip.embedding // reduction, 1)
        self.meta_net = nn.Sequential(
            nn.Linear(clip.embedding, inner), nn.ReLU(inplace=True), nn.Linear(inner, clip.text.width)
        )

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes)."""
        image_features = self.encode_images(clip, images)
        contexts = self.context + self.meta_net(image_features)[:, None]
        rows = [
            clip.logits(feature[None], self.prompted_features(clip, context))
            for feature, context in zip(image_features, contexts, strict=True)
        ]
        return torch.cat(rows)
