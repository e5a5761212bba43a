"""MaPLe (Khattak et al., arXiv 2210.03117): deep prompts in both towers, the image's coupled to the text's."""

import torch
from torch import nn
from torch.nn import functional

from zoo.adapters.coop import PLACEHOLDER, embed_words, with_context
from zoo.adapters.few_shot import Classes, Clip, FewShotAdapter
from zoo.encoders.clip import ClipEncoder
from zoo.ranges import PositiveInt
from zoo.registry import register


@register("adapter", "maple")
class MaPLe(FewShotAdapter):
    """Text prompts P_k replace tokens in each of the first layers; ``P_k W_k + b_k`` is appended to the image tokens.

    As in the official code the first prompts take the place of the first words of ``context_init`` and start from them, and
    the image's first prompts pass the norm that precedes its first layer, as its other tokens do. The official code trains in
    float16, maple/official in float32; it knows OpenAI's CLIP alone, and BiomedCLIP's BERT gets its prompts here in the same places.
    """

    def __init__(
        self,
        clip: Clip,
        classes: Classes,
        context: PositiveInt = 2,
        prompt_depth: PositiveInt = 9,
        context_init: str | None = "a photo of a",
    ) -> None:
        """Build.

        Args:
            clip: gives widths, depth and the tokenizer.
            classes: whose names follow the context; their template is not used.
            context: prompt vectors for each layer.
            prompt_depth: number of layers with learned prompts, the input included.
            context_init: words before a class name; None leaves the prompts alone, sampled from N(0, 0.02^2).
        """
        words = context_init or " ".join([PLACEHOLDER] * context)
        super().__init__(clip, classes, words + " {}.")
        depth = min(prompt_depth, clip.text.depth, clip.vision.depth)
        prompts = torch.randn(depth, context, clip.text.width) * 0.02
        if context_init is not None:
            prompts[0] = embed_words(clip, context_init)[:context]
        self.prompts_by_layer = nn.Parameter(prompts)
        self.couplings = nn.ModuleList(nn.Linear(clip.text.width, clip.vision.width) for _ in range(depth))

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes)."""
        image = functional.normalize(self._image(clip, images), dim=-1)
        return clip.logits(image, functional.normalize(self._text(clip), dim=-1))

    def _text(self, clip: ClipEncoder) -> torch.Tensor:
        embedded = with_context(clip.text.embed(self.input_ids), self.prompts_by_layer[0])
        tokens, attention_mask = clip.text.start(embedded, self.input_ids)
        for layer in range(clip.text.depth):
            if 0 < layer < len(self.prompts_by_layer):
                tokens = with_context(tokens, self.prompts_by_layer[layer])
            tokens = clip.text.layer(layer, tokens, attention_mask)
        return clip.text.finish(tokens, self.input_ids)

    def _image(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        tokens = clip.vision.start(clip.normalise(images))
        count = tokens.shape[1]
        for layer in range(clip.vision.depth):
            if layer < len(self.couplings):
                prompts = self.couplings[layer](self.prompts_by_layer[layer])
                prompts = clip.vision.first_norm(prompts) if layer == 0 else prompts
                tokens = torch.cat([tokens[:, :count], prompts.to(tokens.dtype).expand(len(tokens), -1, -1)], dim=1)
            tokens = clip.vision.layer(layer, tokens)
        return clip.vision.finish(tokens[:, :count])
