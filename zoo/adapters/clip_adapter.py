"""CLIP-Adapter (Gao et al., arXiv 2110.04544): a bottleneck on the image feature, mixed back into it."""

import torch
from torch import nn
from torch.nn import functional

from zoo.adapters.few_shot import ClassNames, Clip, FewShotAdapter, Template
from zoo.encoders.clip import ClipEncoder
from zoo.registry import register


@register("adapter", "clip_adapter")
class ClipAdapter(FewShotAdapter):
    """``f <- ratio * relu(relu(f W_1) W_2) + (1 - ratio) * f`` on the image side, as in the official code."""

    def __init__(
        self, clip: Clip, class_names: ClassNames, template: Template, reduction: int = 4, ratio: float = 0.2
    ) -> None:
        """Build; the bottleneck is the embedding's width over ``reduction``."""
        super().__init__(clip, class_names, template)
        width, inner = clip.embedding, max(clip.embedding // reduction, 1)
        self.bottleneck = nn.Sequential(
            nn.Linear(width, inner, bias=False), nn.ReLU(), nn.Linear(inner, width, bias=False), nn.ReLU()
        )
        self.ratio = ratio

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes)."""
        with torch.no_grad():
            features, classes = clip.encode_image(images), clip.encode_ids(self.input_ids)
        mixed = self.ratio * self.bottleneck(features) + (1 - self.ratio) * features
        return clip.logits(functional.normalize(mixed, dim=-1), classes)
