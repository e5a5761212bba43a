"""Whether what an answer affirms is on the image: a score for each ``[SEG]``, which may veto it.

Ours (reconstructed): GSVA (arXiv 2312.10103) rejects by a token of the answer alone, so a language model that has begun to affirm
goes on to draw. The score judges what was written. It learns from answers that affirm what is absent, besides true ones.
"""

import torch
from torch import nn
from torch.nn import functional


class PresenceHead(nn.Module):
    """``logit = W2 GELU(W1 [h; s])`` of the last hidden state h of a ``[SEG]`` and three statistics s of its mask logits.

    The statistics are the highest logit, the logit's mean under the mask, and the logarithm of the mask's share of the image. No
    gradient reaches the mask through them; that of h trains the language model.
    """

    def __init__(self, language_width: int, width: int = 128) -> None:
        """Build.

        Args:
            language_width: width of the hidden states.
            width: of the hidden layer.
        """
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(language_width + 3, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, hidden_states: torch.Tensor, mask_logits: torch.Tensor) -> torch.Tensor:
        """Logits (n) of presence.

        Args:
            hidden_states: (n, language_width) of each ``[SEG]``.
            mask_logits: (n, side, side) of the mask of each.
        """
        statistics = mask_statistics(mask_logits.detach())
        logits: torch.Tensor = self.layers(torch.cat([hidden_states.float(), statistics], dim=1))
        return logits[:, 0]


def mask_statistics(mask_logits: torch.Tensor) -> torch.Tensor:
    """Statistics (n, 3) of mask logits (n, side, side), each of the order of 1."""
    logits = mask_logits.float().flatten(1)
    probabilities = logits.sigmoid()
    mass = probabilities.sum(dim=1)
    under_mask = (probabilities * logits).sum(dim=1) / mass.clamp(min=1e-6)
    share = (mass / logits.shape[1]).clamp(min=1e-6).log()
    return torch.stack([logits.amax(dim=1) / 10, under_mask / 10, share / 10], dim=1)


def presence_loss(logits: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy of logits (n) against 1 for present and 0 for absent targets (n); 0 without any."""
    if not len(logits):
        return logits.sum() * 0.0
    return functional.binary_cross_entropy_with_logits(logits.float(), present)
