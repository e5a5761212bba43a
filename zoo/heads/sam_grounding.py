"""SAM's mask decoder (Kirillov et al., arXiv 2304.02643) driven by language tokens, as in LISA (arXiv 2308.00692).

transformers' SAM underneath. The image encoder and the prompt encoder are frozen, the mask decoder trains.
"""

from typing import Annotated, Any, Literal

import torch

from zoo.constants import IMAGENET_MEAN
from zoo.encoders.loading import (
    build_stand_in,
    check_model_type,
    load_pretrained,
    local_folder,
    stand_in_config,
)
from zoo.heads.fitting import Fitting, LetterboxFitting
from zoo.heads.pixel_grounding import Features, PixelGrounding
from zoo.heads.unet_grounding import normalize_imagenet
from zoo.pretrained import should_load_weights
from zoo.ranges import PositiveInt
from zoo.registry import Injected, register

_SHAPES: dict[str, dict[str, Any]] = {
    "base": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "global_attn_indexes": [2, 5, 8, 11],
    },
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "global_attn_indexes": [5, 11, 17, 23],
    },
    "huge": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "global_attn_indexes": [7, 15, 23, 31],
    },
}


@register("head", "sam_grounding")
class SamGrounding(PixelGrounding):
    """A language token is SAM's only sparse prompt, beside its "no mask" dense prompt; its single-mask output is used.

    Image embedding: (batch, 256, 64, 64) at 1024 pixels. Mask logits: (n, 256, 256). The padding is 0 after normalisation, as
    SAM's weights expect. SAM's, MedSAM's (arXiv 2304.12306) and other weights of this format are read.
    """

    cacheable = True

    def __init__(
        self,
        language_width: Annotated[PositiveInt, Injected],
        source: str | None = None,
        size: Literal["base", "large", "huge"] = "base",
    ) -> None:
        """Load SAM, or build it with random weights.

        Args:
            language_width: width of the language tokens.
            source: local folder or hub name of a transformers SAM (safetensors only), as facebook/sam-vit-huge; random
                weights of ``size`` if None.
            size: of the image encoder, where the shape is not read from ``source``.
        """
        from transformers import SamConfig, SamModel

        vision: Any = {**_SHAPES[size], "mlp_dim": 4 * _SHAPES[size]["hidden_size"]}
        sam = load_sam(source, SamModel, SamConfig(vision_config=vision), "sam")
        super().__init__(language_width, sam.config.prompt_encoder_config.hidden_size)
        self.sam = sam.requires_grad_(False)
        self.sam.mask_decoder.requires_grad_(True)
        self.image_size = sam.config.vision_config.image_size
        self.feature_widths = [sam.config.vision_config.output_channels]

    @property
    def fitting(self) -> Fitting:
        """The longer side is resized, the rest padded with what normalisation makes 0."""
        return LetterboxFitting(self.image_size, IMAGENET_MEAN)

    @torch.no_grad()
    def encode_images(self, images: torch.Tensor) -> Features:
        """Frozen image embeddings [(batch, 256, rows, columns)]."""
        dtype = self.sam.vision_encoder.patch_embed.projection.weight.dtype
        return [self.sam.vision_encoder(normalize_imagenet(images).to(dtype)).last_hidden_state]

    def decode_masks(self, features: Features, prompts: torch.Tensor) -> torch.Tensor:
        """Mask logits (n, 4 rows, 4 columns) of embeddings (n, 256, rows, columns) and prompts (n, 256)."""
        (embedding,) = features
        return decode_prompts(self.sam, embedding, prompts)


def load_sam(source: str | None, model_class: Any, default: Any, model_types: str) -> Any:
    """A model of SAM's family: of a folder or hub name whose ``model_type`` begins with one of ``model_types``, or random.

    Args:
        source: local folder or hub name (safetensors only); random weights of ``default`` if None.
        model_class: of transformers.
        default: configuration of a model without a source, and of a planned one that is not here.
        model_types: prefixes, separated by spaces.
    """
    if source is None:
        return model_class(default)
    if should_load_weights():
        check_model_type(source, model_types)
        return load_pretrained(model_class, local_folder(source, None))
    config, dtype = stand_in_config(source, default, torch.float32)
    return build_stand_in(model_class, config, dtype, "sdpa", None)


def decode_prompts(sam: Any, embedding: torch.Tensor, prompts: torch.Tensor, **features: Any) -> torch.Tensor:
    """Single-mask logits (n, rows, columns) of a mask decoder, from image embeddings and one sparse prompt each (n, width).

    ``features`` are what else the decoder of a model takes, as SAM 2's features of high resolution.
    """
    positions = sam.get_image_wide_positional_embeddings().expand(len(embedding), -1, -1, -1)
    dense = sam.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1).expand_as(embedding)
    masks, *_ = sam.mask_decoder(
        image_embeddings=embedding.to(prompts.dtype),
        image_positional_embeddings=positions.to(prompts.dtype),
        sparse_prompt_embeddings=prompts[:, None, None],
        dense_prompt_embeddings=dense.to(prompts.dtype),
        multimask_output=False,
        **features,
    )
    mask_logits: torch.Tensor = masks[:, 0, 0]
    return mask_logits
