"""CoOp (Zhou et al., arXiv 2109.01134): learned context vectors in place of the prompt's words."""

import torch
from torch import nn

from zoo.adapters.few_shot import ClassNames, Clip, FewShotAdapter, Template
from zoo.encoders.clip import ClipEncoder
from zoo.registry import register

PLACEHOLDER = "x"
"""A word of one token, whose positions the context vectors replace."""


@register("adapter", "coop")
class CoOp(FewShotAdapter):
    """``[start] v_1 ... v_M class name .``, with M context vectors shared by all classes."""

    def __init__(self, clip: Clip, class_names: ClassNames, template: Template, context: int = 16) -> None:
        """Build; the template is replaced by ``context`` vectors, sampled from N(0, 0.02^2)."""
        super().__init__(clip, class_names, " ".join([PLACEHOLDER] * context) + " {}.")
        self.context = nn.Parameter(torch.randn(context, clip.text.width) * 0.02)

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes)."""
        with torch.no_grad():
            features = clip.encode_image(images)
        embedded = clip.text.embed(self.input_ids)
        context = self.context.expand(len(embedded), -1, -1)
        prompts = torch.cat([embedded[:, :1], context, embedded[:, 1 + context.shape[1] :]], dim=1)
        return clip.logits(features, clip.encode_ids(self.input_ids, prompts))
