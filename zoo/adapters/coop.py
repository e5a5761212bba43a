"""CoOp (Zhou et al., arXiv 2109.01134): learned context vectors in place of the prompt's words."""

import torch
from torch import nn

from zoo.adapters.few_shot import Classes, Clip, FewShotAdapter
from zoo.encoders.clip import ClipEncoder
from zoo.ranges import PositiveInt
from zoo.registry import register

PLACEHOLDER = "x"
"""A word of one token, whose positions the context vectors replace."""


@register("adapter", "coop")
class CoOp(FewShotAdapter):
    """``[start] v_1 ... v_M class name .``, with M context vectors shared by all classes.

    The official code can also put the class in the middle of the context, and give each class a context of its own; neither is
    built. Its recipe on biomedical sets is coop/official.
    """

    def __init__(
        self, clip: Clip, classes: Classes, context: PositiveInt = 16, context_init: str | None = None
    ) -> None:
        """Build.

        Args:
            clip: gives the width and the tokenizer.
            classes: whose names follow the context; their template is not used.
            context: number of context vectors, where ``context_init`` is None; they are sampled from N(0, 0.02^2).
            context_init: words that the context starts from, a vector for each token ("a photo of a").
        """
        words = context_init or " ".join([PLACEHOLDER] * context)
        super().__init__(clip, classes, words + " {}.")
        if context_init is None:
            self.context = nn.Parameter(torch.randn(context, clip.text.width) * 0.02)
        else:
            self.context = nn.Parameter(embed_words(clip, context_init))

    def prompted_features(self, clip: ClipEncoder, context: torch.Tensor | None = None) -> torch.Tensor:
        """Unit embeddings (classes, embedding) of the classes behind a context (tokens, width), the learned one by default."""
        embedded = clip.text.embed(self.input_ids)
        prompts = with_context(embedded, self.context if context is None else context)
        return clip.encode_ids(self.input_ids, prompts)

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes)."""
        features = self.encode_images(clip, images)
        return clip.logits(features, self.prompted_features(clip))


def embed_words(clip: ClipEncoder, words: str) -> torch.Tensor:
    """Token embeddings (tokens, width) of words, without start and end tokens."""
    embedded = clip.text.embed(clip.tokenize([words]))
    return embedded[0, 1 : 1 + clip.count_tokens(words)].detach().clone()


def with_context(tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """Tokens (classes, positions, width) with those after the start token replaced by a context (tokens, width)."""
    expanded = context.to(tokens.dtype).expand(len(tokens), -1, -1)
    return torch.cat([tokens[:, :1], expanded, tokens[:, 1 + len(context) :]], dim=1)
