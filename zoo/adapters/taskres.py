"""TaskRes (Yu et al., arXiv 2211.10277): a trained residual on each class embedding."""

import torch
from torch import nn
from torch.nn import functional

from zoo.adapters.few_shot import Classes, Clip, FewShotAdapter
from zoo.encoders.clip import ClipEncoder
from zoo.ranges import NonNegativeFloat
from zoo.registry import register


@register("adapter", "taskres")
class TaskRes(FewShotAdapter):
    """``t <- t + scale x``, with the class embeddings t of the frozen CLIP, not normalised, and x starting at zero.

    The paper's regular base; its enhanced base (embeddings tuned on the target set beforehand) is not built, nor are its ImageNet
    templates. Its recipe is taskres/official, with the rate of all sets but ImageNet.
    """

    class_bound = True

    def __init__(self, clip: Clip, classes: Classes, scale: NonNegativeFloat = 0.5) -> None:
        """Start at zero-shot CLIP.

        Args:
            clip: the frozen CLIP.
            classes: that the residuals are of.
            scale: factor on the residuals, the paper's alpha.
        """
        super().__init__(clip, classes)
        self.residuals = nn.Parameter(torch.zeros(len(classes.names), clip.embedding))
        self.scale = scale

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes)."""
        image_features = self.encode_images(clip, images)
        class_features = self.text_features(clip, normalize=False) + self.scale * self.residuals
        return clip.logits(image_features, functional.normalize(class_features, dim=-1))
