"""CLIP-LoRA (Zanella and Ben Ayed, arXiv 2405.18541): LoRA (arXiv 2106.09685) on query, key and value of both towers.

Not by peft, whose LoRA of a fused nn.MultiheadAttention adds its product to the frozen weight and subtracts it again in
every forward pass, so that rounding makes the frozen weight drift.
"""

import torch
from torch import nn
from torch.nn import functional

from zoo.adapters.few_shot import Classes, Clip, FewShotAdapter
from zoo.encoders.clip import ClipEncoder
from zoo.ranges import Dropout, NonNegativeFloat, PositiveInt
from zoo.registry import register


class LowRankUpdate(nn.Module):
    """``s B A dropout(x)`` for each of the stacked matrices of a weight, s = alpha / sqrt(rank); ``B`` starts at zero."""

    def __init__(self, weight: torch.Tensor, blocks: int, rank: int, alpha: float, dropout: float) -> None:
        """Build for a weight (rows, columns) in which ``blocks`` matrices are stacked along the rows."""
        super().__init__()
        rows, columns = weight.shape
        bound = columns**-0.5  # as nn.Linear starts
        self.lora_a = nn.Parameter(torch.empty(blocks, rank, columns, device=weight.device).uniform_(-bound, bound))
        self.lora_b = nn.Parameter(torch.zeros(blocks, rows // blocks, rank, device=weight.device))
        self.scale = alpha / rank**0.5
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs (..., columns) to updates (..., rows); each matrix has a dropout of its own."""
        updates = [
            self.dropout(inputs) @ a.to(inputs.dtype).mT @ b.to(inputs.dtype).mT
            for a, b in zip(self.lora_a, self.lora_b, strict=True)
        ]
        return self.scale * torch.cat(updates, dim=-1)

    def product(self) -> torch.Tensor:
        """``s B A`` of all blocks (rows, columns)."""
        return self.scale * torch.cat([b @ a for a, b in zip(self.lora_a, self.lora_b, strict=True)])


class LoRALinear(nn.Linear):
    """A frozen linear layer with an update; keeps the name of its weight."""

    lora: LowRankUpdate

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``W x + b`` and the update."""
        return super().forward(input) + self.lora(input)


class LoRAAttention(nn.MultiheadAttention):
    """A frozen nn.MultiheadAttention with updates of query, key and value; keeps the names of its weights."""

    lora: LowRankUpdate

    def forward(  # type: ignore[override]
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, None]:
        """Self-attention of ``query`` (batch, tokens, width), or tokens first where the module says so; no weights."""
        inputs = query if self.batch_first else query.transpose(0, 1)
        assert self.in_proj_weight is not None
        stacked = functional.linear(inputs, self.in_proj_weight, self.in_proj_bias) + self.lora(inputs)
        q, k, v = stacked.unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask).transpose(1, 2).flatten(-2)
        outputs = self.out_proj(mixed)
        return (outputs if self.batch_first else outputs.transpose(0, 1)), None


@register("adapter", "lora")
class LoRA(FewShotAdapter):
    """``W x + s B A dropout(x)`` for the query, key and value weights W of every layer of both towers, s = alpha / sqrt(rank).

    The official code runs under float16 autocast, lora/official in float32; its cosine ends at a rate of 1e-6, here too.
    """

    def __init__(
        self,
        clip: Clip,
        classes: Classes,
        rank: PositiveInt = 2,
        alpha: NonNegativeFloat = 1.0,
        dropout: Dropout = 0.25,
    ) -> None:
        """Put the updates into the CLIP's attention, in place; the defaults are the official ones.

        Args:
            clip: whose query, key and value weights are adapted.
            classes: the classes and their prompts.
            rank: of the updates.
            alpha: the updates are scaled by ``alpha / sqrt(rank)``.
            dropout: of the inputs of the updates.
        """
        super().__init__(clip, classes)
        for name, module in list(clip.model.named_modules()):
            last = name.rsplit(".", 1)[-1]
            if isinstance(module, nn.MultiheadAttention):
                module.lora = LowRankUpdate(module.in_proj_weight, 3, rank, alpha, dropout)
                module.__class__ = LoRAAttention  # as torch's parametrizations do: the frozen weights keep their names
            elif isinstance(module, nn.Linear) and last in ("qkv", "query", "key", "value"):
                module.lora = LowRankUpdate(module.weight, 3 if last == "qkv" else 1, rank, alpha, dropout)
                module.__class__ = LoRALinear
        self.updates = [module for module in clip.model.modules() if isinstance(module, LowRankUpdate)]

    def train(self, mode: bool = True) -> "LoRA":
        """Switch mode, that of the updates too: their dropout is the adapter's though they are inside the CLIP."""
        for update in self.updates:
            update.train(mode)
        return super().train(mode)

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes)."""
        return clip.logits(clip.encode_image(images), clip.encode_ids(self.input_ids))

    def clip_parameters(self, clip: ClipEncoder) -> list[nn.Parameter]:
        """The low-rank matrices inside the CLIP."""
        return [parameter for name, parameter in clip.model.named_parameters() if "lora_" in name]

    @torch.no_grad()
    def merge(self, clip: ClipEncoder) -> None:
        """Add the products to the frozen weights, in place, and remove the updates from the CLIP."""
        for module in list(clip.model.modules()):
            if isinstance(module, LoRALinear | LoRAAttention):
                weight = module.weight if isinstance(module, LoRALinear) else module.in_proj_weight
                assert weight is not None
                weight += module.lora.product().to(weight.dtype)
                del module.lora
                module.__class__ = type(module).__bases__[0]
        self.updates = []
