"""Image encoders with patch tokens: the image tower of any CLIP of the zoo, timm's vision transformers, U-Net encoders."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import nn
from torch.nn import functional

from zoo.constants import IMAGENET_MEAN, IMAGENET_STD
from zoo.encoders.clip import ClipEncoder
from zoo.errors import ArgumentError
from zoo.pretrained import fingerprint_of, should_load_weights
from zoo.ranges import NonNegativeInt, PixelSide, PositiveInt
from zoo.registry import Slot, register


class VisionEncoder(nn.Module):
    """Images to tokens: ``tokens`` for each image, ``width`` wide; ``image_size`` is the side of the square input in pixels."""

    width: int
    tokens: int
    image_size: int

    @abstractmethod
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (batch, 3, image_size, image_size) in [0, 1] to tokens (batch, tokens, width)."""

    def fingerprint(self) -> str:
        """sha256 over the names, shapes and float32 bytes of all weights."""
        return fingerprint_of(self.state_dict().items())


def merge_patches(feature_maps: torch.Tensor, side: int) -> torch.Tensor:
    """Feature maps (..., channels, height, width) to tokens (..., tokens, channels * side * side), one a square of patches.

    How InternVL-1.5 (arXiv 2404.16821) and Qwen2-VL (arXiv 2409.12191) reduce the number of image tokens.
    """
    return functional.pixel_unshuffle(feature_maps, side).flatten(-2).transpose(-1, -2)


def pool_to_tokens(levels: Sequence[torch.Tensor], patches: int, side: int) -> torch.Tensor:
    """Feature maps (batch, channels, height, width) pooled to a square of ``patches``, then as :func:`merge_patches` of all channels.

    Raises:
        ArgumentError: the patches are no square, as those of an image in tiles.
    """
    grid = math.isqrt(patches)
    if grid**2 != patches:
        raise ArgumentError(f"feature maps can be shared with a square of image tokens, not with {patches} in tiles")
    return merge_patches(torch.cat([functional.adaptive_avg_pool2d(level, grid) for level in levels], dim=1), side)


def build_projector(in_features: int, out_features: int) -> nn.Sequential:
    """LLaVA-1.5's projector (arXiv 2310.03744) from image tokens to a language model's width: Linear, GELU, Linear."""
    return nn.Sequential(nn.Linear(in_features, out_features), nn.GELU(), nn.Linear(out_features, out_features))


@register("vision_encoder", "clip_vision")
class ClipVision(VisionEncoder):
    """The patch tokens of a CLIP's image tower after its last but ``before_last`` layer (LLaVA uses the last but one)."""

    def __init__(
        self, clip: Annotated[ClipEncoder, Slot("vision_language_encoder")], before_last: NonNegativeInt = 1
    ) -> None:
        """Wrap a CLIP; its text tower stays, unused, so that the weights keep their names.

        Args:
            clip: whose image tower is used.
            before_last: number of last layers that are left out.

        Raises:
            ArgumentError: the tower has no such layer, or its input is not a square.
        """
        super().__init__()
        if not 0 <= before_last < clip.vision.depth or len(set(clip.image_size)) != 1:
            raise ArgumentError(f"before_last is {before_last} of {clip.vision.depth} layers, input {clip.image_size}")
        self.clip, self._layers = clip, clip.vision.depth - before_last
        self.width, self.tokens = clip.vision.width, clip.vision.grid[0] * clip.vision.grid[1]
        self.image_size = clip.image_size[0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See :class:`VisionEncoder`."""
        tower = self.clip.vision
        tokens = tower.start(self.clip.normalise(images))
        for layer in range(self._layers):
            tokens = tower.layer(layer, tokens)
        return tokens[:, tower.prefix :]


@register("vision_encoder", "timm_vision")
class TimmVisionEncoder(VisionEncoder):
    """The patch tokens of any timm model whose ``forward_features`` returns them."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: str, pretrained: bool = False, image_size: PixelSide | None = None) -> None:
        """Build by name.

        Args:
            model: timm's name, as vit_base_patch16_224.
            pretrained: load timm's weights (from the hub).
            image_size: side of the input in pixels; the model's default if None.
        """
        import timm

        super().__init__()
        size: dict[str, Any] = {} if image_size is None else {"img_size": image_size}
        backbone: Any = timm.create_model(model, pretrained=pretrained and should_load_weights(), num_classes=0, **size)
        self.model = backbone
        self.image_size = image_size or backbone.default_cfg["input_size"][-1]
        self.width = int(backbone.num_features)
        self._prefix = int(getattr(backbone, "num_prefix_tokens", 0))
        rows, columns = backbone.patch_embed.grid_size
        self.tokens = rows * columns
        for name in ("mean", "std"):
            values = torch.tensor(backbone.default_cfg[name]).view(3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See :class:`VisionEncoder`."""
        tokens: torch.Tensor = self.model.forward_features((images - self.mean) / self.std)
        return tokens[:, self._prefix :]


@register("vision_encoder", "unet_vision")
class UnetVision(VisionEncoder):
    """The coarsest feature maps of a U-Net's encoder as tokens, one for each pixel of the coarsest.

    The weights of a trained U-Net come with ``init_from``. Batch norm keeps its running statistics, also where the weights train.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        encoder: str = "tu-efficientnet_lite0",
        depth: PositiveInt = 5,
        levels: PositiveInt = 2,
        image_size: PixelSide = 256,
    ) -> None:
        """Build with random weights.

        Args:
            encoder: of segmentation-models-pytorch; "tu-NAME" for any timm model.
            depth: number of its feature maps, each half as wide as the one before.
            levels: how many of them, the coarsest, are read; finer ones by squares of pixels.
            image_size: side of the input in pixels, a multiple of 2 to the power of ``depth``.

        Raises:
            ArgumentError: the sizes do not fit.
        """
        import segmentation_models_pytorch as smp

        super().__init__()
        if image_size % 2**depth or not 1 <= levels <= depth:
            raise ArgumentError(f"image_size is {image_size}, levels is {levels}, of an encoder of depth {depth}")
        self.encoder: Any = smp.encoders.get_encoder(encoder, in_channels=3, depth=depth, weights=None)
        widths = self.encoder.out_channels[: -levels - 1 : -1]
        self.levels, self.image_size, self.tokens = levels, image_size, (image_size // 2**depth) ** 2
        self.width = sum(width * 4**level for level, width in enumerate(widths))
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See :class:`VisionEncoder`."""
        normalized = ((images - self.mean) / self.std).to(next(self.encoder.parameters()).dtype)
        maps = self.encoder(normalized)[: -self.levels - 1 : -1]
        return torch.cat([merge_patches(feature_map, 2**level) for level, feature_map in enumerate(maps)], dim=-1)
