"""MaPLe (Khattak et al., arXiv 2210.03117): deep prompts in both towers, the image's coupled to the text's."""

import torch
from torch import nn
from torch.nn import functional

from zoo.adapters.coop import PLACEHOLDER
from zoo.adapters.few_shot import ClassNames, Clip, FewShotAdapter, Template
from zoo.encoders.clip import ClipEncoder
from zoo.registry import register


@register("adapter", "maple")
class MaPLe(FewShotAdapter):
    """Text prompts P_k replace tokens in each of the first layers; ``P_k W_k + b_k`` is appended to the image tokens."""

    def __init__(
        self, clip: Clip, class_names: ClassNames, template: Template, context: int = 2, prompt_depth: int = 9
    ) -> None:
        """Build.

        Args:
            clip: gives widths and depth.
            class_names: the classes.
            template: replaced by the learned prompts.
            context: prompt vectors for each layer.
            prompt_depth: number of layers with learned prompts, the input included.
        """
        super().__init__(clip, class_names, " ".join([PLACEHOLDER] * context) + " {}.")
        depth = min(prompt_depth, clip.text.depth, clip.vision.depth)
        self.prompts_by_layer = nn.Parameter(torch.randn(depth, context, clip.text.width) * 0.02)
        self.couplings = nn.ModuleList(nn.Linear(clip.text.width, clip.vision.width) for _ in range(depth))

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes)."""
        image = functional.normalize(self._image(clip, images), dim=-1)
        return clip.logits(image, functional.normalize(self._text(clip), dim=-1))

    def _text(self, clip: ClipEncoder) -> torch.Tensor:
        tokens, mask = clip.text.start(self._with_context(clip.text.embed(self.input_ids), 0), self.input_ids)
        for layer in range(clip.text.depth):
            if 0 < layer < len(self.prompts_by_layer):
                tokens = self._with_context(tokens, layer)
            tokens = clip.text.layer(layer, tokens, mask)
        return clip.text.finish(tokens, self.input_ids)

    def _with_context(self, tokens: torch.Tensor, layer: int) -> torch.Tensor:
        """Replace the tokens after the start token by a layer's prompts."""
        prompts = self.prompts_by_layer[layer].expand(len(tokens), -1, -1)
        return torch.cat([tokens[:, :1], prompts, tokens[:, 1 + prompts.shape[1] :]], dim=1)

    def _image(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        tokens = clip.vision.start(clip.normalise(images))
        count = tokens.shape[1]
        for layer in range(clip.vision.depth):
            if layer < len(self.couplings):
                prompts = self.couplings[layer](self.prompts_by_layer[layer]).expand(len(tokens), -1, -1)
                tokens = torch.cat([tokens[:, :count], prompts], dim=1)
            tokens = clip.vision.layer(layer, tokens)
        return clip.vision.finish(tokens[:, :count])
