"""SAM 2 (Ravi et al., arXiv 2408.00714) and SAM 3 (Carion et al., arXiv 2511.16719) driven by language tokens.

transformers' image models underneath: Sam2Model, and for SAM 3 the Sam3TrackerModel, which takes a prompt embedding as SAM does.
"""

from typing import Annotated, Any, Literal

import torch

from zoo.heads.fitting import Fitting, SquashFitting
from zoo.heads.pixel_grounding import Features, PixelGrounding
from zoo.heads.sam_grounding import decode_prompts, load_sam
from zoo.heads.unet_grounding import normalize_imagenet
from zoo.ranges import PositiveInt
from zoo.registry import Injected, register

_ENCODED_ONCE = ("conv_s0", "conv_s1")
"""Layers of the mask decoder that belong to the image embedding, so that they stay frozen."""


_HIERA: dict[str, dict[str, Any]] = {
    "tiny": {"width": 96, "heads": 1, "blocks": [1, 2, 7, 2], "global": [5, 7, 9], "windows": [8, 4, 14, 7], "grid": 7},
    "small": {
        "width": 96,
        "heads": 1,
        "blocks": [1, 2, 11, 2],
        "global": [7, 10, 13],
        "windows": [8, 4, 14, 7],
        "grid": 7,
    },
    "base_plus": {
        "width": 112,
        "heads": 2,
        "blocks": [2, 3, 16, 3],
        "global": [12, 16, 20],
        "windows": [8, 4, 14, 7],
        "grid": 14,
    },
    "large": {
        "width": 144,
        "heads": 2,
        "blocks": [2, 6, 36, 4],
        "global": [23, 33, 43],
        "windows": [8, 4, 16, 8],
        "grid": 7,
    },
}


class _TrackerGrounding(PixelGrounding):
    """What SAM 2 and SAM 3 share: image features at three levels, and a decoder that takes prompt embeddings."""

    cacheable = True

    def __init__(
        self, language_width: int, source: str | None, model_class: Any, default: Any, model_types: str
    ) -> None:
        """Load a model whose config.json has one of ``model_types``, or build ``default`` with random weights."""
        sam = load_sam(source, model_class, default, model_types)
        width = sam.config.prompt_encoder_config.hidden_size
        super().__init__(language_width, width)
        self.sam = sam.requires_grad_(False)
        for name, parameter in self.sam.mask_decoder.named_parameters():
            parameter.requires_grad = not name.startswith(_ENCODED_ONCE)
        self.sam.mask_decoder.dynamic_multimask_via_stability = False
        self.image_size = sam.config.prompt_encoder_config.image_size
        self.feature_widths = [width // 8, width // 4, width]

    @property
    def fitting(self) -> Fitting:
        """Squashed to a square."""
        return SquashFitting(self.image_size)

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Images (batch, 3, height, width) in [0, 1] by the model's mean and standard deviation."""
        return normalize_imagenet(images)

    def encode_images(self, images: torch.Tensor) -> Features:
        """Two maps of high resolution and the frozen image embedding, finest first."""
        pixels = self.normalize(images).to(self.sam.no_memory_embedding.dtype)
        return list(self.sam.get_image_embeddings(pixels))

    def decode_masks(self, features: Features, prompts: torch.Tensor) -> torch.Tensor:
        """Mask logits (n, 4 rows, 4 columns) of embeddings (n, 256, rows, columns) and prompts (n, 256)."""
        *finer, embedding = features
        return decode_prompts(
            self.sam, embedding, prompts, high_resolution_features=[part.to(prompts.dtype) for part in finer]
        )


@register("head", "sam2_grounding")
class Sam2Grounding(_TrackerGrounding):
    """A language token is SAM 2's only sparse prompt, beside its "no mask" dense prompt; its single-mask output is used.

    The mask decoder trains, all else is frozen. Images are squashed to a square, as SAM 2 was trained. Features, finest first:
    two of high resolution (batch, 32, 256, 256), (batch, 64, 128, 128) and the embedding (batch, 256, 64, 64), at 1024 pixels.
    Mask logits: (n, 256, 256). SAM 2 falls back on its other masks where the first is unstable; no token trains those, so that
    here the first is used always.
    """

    def __init__(
        self,
        language_width: Annotated[PositiveInt, Injected],
        source: str | None = None,
        size: Literal["tiny", "small", "base_plus", "large"] = "large",
    ) -> None:
        """Load SAM 2, or build it with random weights.

        Args:
            language_width: width of the language tokens.
            source: local folder or hub name of a transformers SAM 2 (safetensors only), as facebook/sam2.1-hiera-large; random
                weights of ``size`` if None.
            size: of the image encoder, where the shape is not read from ``source``.
        """
        from transformers import Sam2Config, Sam2Model

        super().__init__(language_width, source, Sam2Model, Sam2Config(vision_config=_hiera(**_HIERA[size])), "sam2")


@register("head", "sam3_grounding")
class Sam3Grounding(_TrackerGrounding):
    """SAM 3's tracker, whose decoder is SAM 2's: 1008 pixels, mask logits (n, 288, 288); see :class:`Sam2Grounding`."""

    def __init__(self, language_width: Annotated[PositiveInt, Injected], source: str | None = None) -> None:
        """Load SAM 3, or build it with random weights.

        Args:
            language_width: width of the language tokens.
            source: local folder or hub name (safetensors only), as facebook/sam3; random weights of its size if None.
        """
        from transformers import Sam3TrackerConfig, Sam3TrackerModel

        super().__init__(language_width, source, Sam3TrackerModel, Sam3TrackerConfig(), "sam3_tracker sam3_video")

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """From [0, 1] to [-1, 1]."""
        return images * 2 - 1


def _hiera(width: int, heads: int, grid: int, **stages: list[int]) -> dict[str, Any]:
    """A published image encoder of SAM 2, as transformers describes it."""
    widths = [width * 2**stage for stage in range(4)]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": width,
        "num_attention_heads": heads,
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [heads * 2**stage for stage in range(4)],
        "blocks_per_stage": stages["blocks"],
        "global_attention_blocks": stages["global"],
        "window_size_per_stage": stages["windows"],
        "window_positional_embedding_background_size": [grid, grid],
    }
    return {"backbone_config": backbone, "backbone_channel_list": widths[::-1]}
