"""CLIP-Adapter (Gao et al., arXiv 2110.04544): a bottleneck on the image feature, mixed back into it."""

import torch
from torch import nn
from torch.nn import functional

from zoo.adapters.few_shot import Classes, Clip, FewShotAdapter
from zoo.encoders.clip import ClipEncoder
from zoo.ranges import Fraction, PositiveInt
from zoo.registry import register


@register("adapter", "clip_adapter")
class ClipAdapter(FewShotAdapter):
    """``f <- ratio * relu(relu(f W_1) W_2) + (1 - ratio) * f`` on the image side, as in the official code.

    BiomedCoOp's version has a ratio of 0.5 and does not normalise again; it keeps the last weights, as here. Its three runs differ
    in crops and order; in clip_adapter/official with ``data.seed: 1`` the order is the same too.
    """

    def __init__(
        self, clip: Clip, classes: Classes, reduction: PositiveInt = 4, ratio: Fraction = 0.2, renormalize: bool = True
    ) -> None:
        """Build.

        Args:
            clip: gives the feature width.
            classes: the classes and their prompts.
            reduction: the bottleneck is the embedding's width over it.
            ratio: share of the adapted feature.
            renormalize: whether the mixed feature is of unit length; not so in BiomedCoOp's variant, whose ratio is 0.5.
        """
        super().__init__(clip, classes)
        width, inner = clip.embedding, max(clip.embedding // reduction, 1)
        self.bottleneck = nn.Sequential(
            nn.Linear(width, inner, bias=False), nn.ReLU(), nn.Linear(inner, width, bias=False), nn.ReLU()
        )
        self.ratio, self.renormalize = ratio, renormalize

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes)."""
        features = self.encode_images(clip, images)
        mixed = self.ratio * self.bottleneck(features) + (1 - self.ratio) * features
        mixed = functional.normalize(mixed, dim=-1) if self.renormalize else mixed
        return clip.logits(mixed, self.text_features(clip))
