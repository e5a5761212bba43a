"""Zero-shot CLIP (Radford et al., arXiv 2103.00020): cosine similarity of image and class prompt, nothing trained."""

import torch

from zoo.adapters.few_shot import FewShotAdapter
from zoo.encoders.clip import ClipEncoder
from zoo.registry import register


@register("adapter", "zero_shot")
class ZeroShot(FewShotAdapter):
    """The frozen CLIP as it is; the baseline of every other method."""

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Scaled cosine logits (batch, classes)."""
        return clip.logits(self.encode_images(clip, images), self.text_features(clip))
