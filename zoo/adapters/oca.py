"""OCA, the orthogonal cross-attention adapter (NEARL, arXiv 2508.04101).

From the paper (formerly NEARL-CLIP, now NEARL): knowledge from the USEformer is decomposed by orthogonality into truly novel
and merely incremental knowledge, and only the novel part is learned from; one adapter at every layer of both towers.
Reconstructed, from the parameter count and from summaries of the paper: the rank, and the Gram-Schmidt step for each token.
"""

from typing import Annotated

import torch
from torch import nn
from torch.nn import functional

from zoo.ranges import NonNegativeFloat, PositiveFloat, PositiveInt
from zoo.registry import Injected, register


@register("adapter", "oca")
class OrthogonalCrossAttention(nn.Module):
    """Adds to each token f the part of the cross-attention update that is orthogonal to f.

    ``u = softmax((f W_q)(z W_k)^T / sqrt(rank)) (z W_v) W_o``; ``u_par = (<u, f> / (<f, f> + eps)) f``;
    ``f <- f + (u - u_par) + incremental_scale * u_par``. ``W_o`` starts at zero, so that the frozen model is the start.
    No biases: 40,960 parameters at width 768 and 32,768 at width 512, with the default rank and synergy.
    """

    def __init__(
        self,
        width: Annotated[PositiveInt, Injected],
        synergy: Annotated[PositiveInt, Injected] = 512,
        rank: PositiveInt = 16,
        incremental_scale: NonNegativeFloat = 0.0,
        eps: PositiveFloat = 1e-6,
    ) -> None:
        """Build.

        Args:
            width: width of the tokens it adapts.
            synergy: width of the synergy vectors.
            rank: width of queries, keys and values.
            incremental_scale: factor on the parallel part u_par; 0 is the paper's, 1 turns orthogonality off.
            eps: keeps the projection finite at a zero token.
        """
        super().__init__()
        self.query = nn.Linear(width, rank, bias=False)
        self.key = nn.Linear(synergy, rank, bias=False)
        self.value = nn.Linear(synergy, rank, bias=False)
        self.out = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.out.weight)
        self.incremental_scale, self.eps = incremental_scale, eps

    def forward(self, features: torch.Tensor, synergy: torch.Tensor) -> torch.Tensor:
        """Adapted features (batch, tokens, width).

        Args:
            features: f, tokens of one tower (batch, tokens, width).
            synergy: z, synergy vectors of the USEformer (batch, queries, synergy).
        """
        # With a dimension of one head, which torch's fast kernels and ONNX expect.
        query, key, value = (part[:, None] for part in (self.query(features), self.key(synergy), self.value(synergy)))
        update = self.out(functional.scaled_dot_product_attention(query, key, value)[:, 0])
        along = (update * features).sum(dim=-1, keepdim=True) / (features.square().sum(dim=-1, keepdim=True) + self.eps)
        scale = 1 - (1 - self.incremental_scale) * along
        return torch.addcmul(update, features, scale)  # features + update - along * features, in one pass
