"""Linear probe (Radford et al., arXiv 2103.00020): a linear classifier on frozen image features."""

import torch
from torch import nn

from zoo.adapters.few_shot import Classes, Clip, FewShotAdapter
from zoo.encoders.clip import ClipEncoder
from zoo.registry import register


@register("adapter", "linear_probe")
class LinearProbe(FewShotAdapter):
    """``logits = W f + b`` on unit image features f, scaled like CLIP's; ``W`` starts at zero."""

    class_bound = True
    reads_prompts = False

    def __init__(self, clip: Clip, classes: Classes) -> None:
        """Build a classifier.

        Args:
            clip: the frozen CLIP.
            classes: that it tells apart; their prompts are not used.
        """
        super().__init__(clip, classes)
        self.classifier = nn.Linear(clip.embedding, len(classes.names))
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes)."""
        features = self.encode_images(clip, images)
        logits: torch.Tensor = self.classifier(clip.scale.detach() * features)
        return logits
