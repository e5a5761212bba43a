"""OCA, the orthogonal cross-attention adapter (NEARL-CLIP, arXiv 2508.04101).

What the paper says: knowledge from the USEformer is split into truly novel and incremental by orthogonality, and the
novel part is learned from; the adapter stands at every layer of both towers. The rank and the token-wise Gram-Schmidt
step are reconstructed from its parameter count and from summaries of the paper.
"""

from typing import Annotated

import torch
from torch import nn
from torch.nn import functional

from zoo.registry import Injected, register


@register("adapter", "oca")
class OrthogonalCrossAttention(nn.Module):
    """Adds to each token what the synergy vectors say and the token does not say already.

    ``u = softmax((f W_q)(z W_k)^T / sqrt(rank)) (z W_v) W_o``; ``u_par = (<u, f> / (<f, f> + eps)) f``;
    ``f <- f + (u - u_par) + incremental_scale * u_par``. ``W_o`` starts at zero, so that at first nothing changes.
    No biases: 40,960 parameters at width 768 and 32,768 at width 512, with the default rank and synergy.
    """

    def __init__(
        self,
        width: Annotated[int, Injected],
        synergy: Annotated[int, Injected] = 512,
        rank: int = 16,
        incremental_scale: float = 0.0,
        eps: float = 1e-6,
    ) -> None:
        """Build.

        Args:
            width: width of the tokens it adapts.
            synergy: width of the synergy vectors.
            rank: width of the attention.
            incremental_scale: share of the parallel part that is kept; 0 is the paper's, 1 turns orthogonality off.
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
        """Adapted features (batch, tokens, width) from features and synergy vectors (batch, queries, synergy)."""
        heads = (self.query(features), self.key(synergy), self.value(synergy))
        update = self.out(functional.scaled_dot_product_attention(*heads))
        along = (update * features).sum(dim=-1, keepdim=True) / (features.square().sum(dim=-1, keepdim=True) + self.eps)
        kept = 1 - (1 - self.incremental_scale) * along
        return torch.addcmul(update, features, kept)  # features + update - along * features, in one pass
