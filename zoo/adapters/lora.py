"""LoRA (Hu et al., arXiv 2106.09685) in both towers of a CLIP, through peft; after CLIP-LoRA (arXiv 2405.18541)."""

import torch
from torch import nn

from zoo.adapters.few_shot import ClassNames, Clip, FewShotAdapter, Template
from zoo.encoders.clip import ClipEncoder
from zoo.registry import register


@register("adapter", "lora")
class LoRA(FewShotAdapter):
    """``W + (alpha / rank) B A`` on the attention of every layer, with B at zero at first.

    CLIP-LoRA adapts query, key and value. peft adapts a fused nn.MultiheadAttention whole, so that in open_clip's own
    towers the output projection has a LoRA too; in timm and BERT towers it is query, key and value only.
    """

    def __init__(
        self, clip: Clip, class_names: ClassNames, template: Template, rank: int = 2, alpha: float = 2.0
    ) -> None:
        """Put the low-rank parts into the CLIP."""
        from peft import LoraConfig, inject_adapter_in_model

        super().__init__(clip, class_names, template)
        targets = [name for name, module in clip.model.named_modules() if _is_attention(name, module)]
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, bias="none")  # type: ignore[arg-type]
        inject_adapter_in_model(config, clip.model)

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes)."""
        return clip.logits(clip.encode_image(images), clip.encode_ids(self.ids))

    def parameters_in(self, clip: ClipEncoder) -> list[nn.Parameter]:
        """The low-rank matrices inside the CLIP."""
        return [parameter for name, parameter in clip.model.named_parameters() if "lora_" in name]


def _is_attention(name: str, module: nn.Module) -> bool:
    if isinstance(module, nn.MultiheadAttention):
        return True
    return isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in ("qkv", "query", "key", "value")
