"""LoRA (Hu et al., arXiv 2106.09685) on query, key and value in both towers of a CLIP, after CLIP-LoRA (arXiv 2405.18541).

Written as a torch parametrization and not with peft: peft's LoRA of a fused nn.MultiheadAttention adds its product to the
frozen weight and subtracts it again in every forward pass, so that rounding makes the frozen weight drift.
"""

import torch
from torch import nn
from torch.nn.utils import parametrize

from zoo.adapters.few_shot import ClassNames, Clip, FewShotAdapter, Template
from zoo.encoders.clip import ClipEncoder
from zoo.registry import register


class LowRank(nn.Module):
    """``W + (alpha / rank) B A`` for each of the blocks stacked in W; ``B`` starts at zero."""

    def __init__(self, rows: int, columns: int, blocks: int, rank: int, alpha: float) -> None:
        """Build for a weight (rows, columns) in which ``blocks`` matrices are stacked along the rows."""
        super().__init__()
        self.lora_a = nn.Parameter(torch.randn(blocks, rank, columns) / columns**0.5)
        self.lora_b = nn.Parameter(torch.zeros(blocks, rows // blocks, rank))
        self.scale = alpha / rank

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The adapted weight (rows, columns)."""
        return weight + self.scale * (self.lora_b @ self.lora_a).reshape(weight.shape)


@register("adapter", "lora")
class LoRA(FewShotAdapter):
    """Low-rank updates of the query, key and value weights of every layer of both towers."""

    def __init__(
        self, clip: Clip, class_names: ClassNames, template: Template, rank: int = 2, alpha: float = 2.0
    ) -> None:
        """Parametrize the CLIP's attention weights in place.

        Args:
            clip: whose query, key and value weights are adapted.
            class_names: the classes.
            template: the prompt, with {} for a class name.
            rank: of the updates.
            alpha: the updates are scaled by ``alpha / rank``.
        """
        super().__init__(clip, class_names, template)
        for module, weight, blocks in _attention_weights(clip.model):
            rows, columns = getattr(module, weight).shape
            low_rank = LowRank(rows, columns, blocks, rank, alpha).to(clip.mean.device)
            parametrize.register_parametrization(module, weight, low_rank)

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes)."""
        return clip.logits(clip.encode_image(images), clip.encode_ids(self.input_ids))

    def clip_parameters(self, clip: ClipEncoder) -> list[nn.Parameter]:
        """The low-rank matrices inside the CLIP."""
        return [parameter for name, parameter in clip.model.named_parameters() if "lora_" in name]


def _attention_weights(model: nn.Module) -> list[tuple[nn.Module, str, int]]:
    """(module, name of its weight, matrices stacked in it) of open_clip's, timm's and BERT's attention."""
    weights: list[tuple[nn.Module, str, int]] = []
    for name, module in model.named_modules():
        last = name.rsplit(".", 1)[-1]
        if isinstance(module, nn.MultiheadAttention):
            weights.append((module, "in_proj_weight", 3))
        elif isinstance(module, nn.Linear) and last in ("qkv", "query", "key", "value"):
            weights.append((module, "weight", 3 if last == "qkv" else 1))
    return weights
