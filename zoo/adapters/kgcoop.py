"""KgCoOp (Yao et al., arXiv 2303.13283): CoOp whose class embeddings stay near those of the hand-written prompts."""

import torch

from zoo.adapters.coop import CoOp
from zoo.adapters.few_shot import Classes, Clip
from zoo.encoders.clip import ClipEncoder
from zoo.ranges import NonNegativeFloat, PositiveInt
from zoo.registry import register


@register("adapter", "kgcoop")
class KgCoOp(CoOp):
    """Loss: cross-entropy + ``weight (1 - mean_i cos(w_i, w_i^clip))`` over the classes i, as in the official code."""

    def __init__(
        self,
        clip: Clip,
        classes: Classes,
        context: PositiveInt = 4,
        context_init: str | None = "a photo of a",
        weight: NonNegativeFloat = 8.0,
    ) -> None:
        """Build.

        Args:
            clip: gives the width and the tokenizer.
            classes: whose hand-written prompts have the embeddings w^clip.
            context: number of context vectors, where ``context_init`` is None.
            context_init: words whose embeddings the context starts from; None samples from N(0, 0.02^2).
            weight: of the regulariser.
        """
        super().__init__(clip, classes, context, context_init)
        self.weight = weight

    def loss(self, clip: ClipEncoder, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See the class."""
        image_features = self.encode_images(clip, images)
        class_features = self.prompted_features(clip)
        cosine = (class_features * self.text_features(clip)).sum(dim=-1)
        logits = clip.logits(image_features, class_features)
        return self.cross_entropy(logits, labels) + self.weight * (1 - cosine.float().mean())
