"""The image tokenizer and decoder of Chameleon and Anole: a VQGAN (Esser et al., arXiv 2012.09841; arXiv 2405.09818).

transformers has the encoder and the codebook but no decoder. Here all three share a module under the official state-dict
names, so that Anole and Chameleon weights load unchanged.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import (
    ChameleonVQVAE,
    ChameleonVQVAEEncoderAttnBlock,
    ChameleonVQVAEEncoderResnetBlock,
)

from zoo.errors import ArgumentError, MissingWeightsError, WeightsError, ZooError
from zoo.pretrained import fingerprint_of
from zoo.ranges import PositiveInt
from zoo.registry import register


class UnknownCodeError(ZooError, ValueError):
    """A code outside the codebook."""


def read_safetensors_folder(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a checkpoint folder, from every shard.

    Raises:
        MissingWeightsError: the folder has no safetensors files.
    """
    from safetensors.torch import load_file

    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise MissingWeightsError(f"{folder} has no safetensors files; the zoo loads no pickles")
    return {name: value for shard in shards for name, value in load_file(shard).items()}


class VQDecoder(nn.Module):
    """Latents (batch, latent_channels, rows, columns) to images (batch, 3, height, width) in about [-1, 1]."""

    def __init__(self, config: ChameleonVQVAEConfig) -> None:
        """Mirror the encoder, with one more block per level and nearest-neighbour upsampling between levels."""
        super().__init__()
        widths = [config.base_channels * factor for factor in config.channel_multiplier]
        with_attention = set(config.attn_resolutions or ())
        resolution = config.resolution // 2 ** (len(widths) - 1)
        width = widths[-1]
        self.conv_in = nn.Conv2d(config.latent_channels, width, 3, padding=1)
        self.mid: Any = nn.Module()
        self.mid.block_1 = ChameleonVQVAEEncoderResnetBlock(config, width, width)
        self.mid.attn_1 = ChameleonVQVAEEncoderAttnBlock(width) if config.attn_type == "vanilla" else nn.Identity()
        self.mid.block_2 = ChameleonVQVAEEncoderResnetBlock(config, width, width)
        levels: list[nn.Module] = []
        for index in reversed(range(len(widths))):
            level: Any = nn.Module()
            inputs = [width] + [widths[index]] * config.num_res_blocks
            level.block = nn.ModuleList(ChameleonVQVAEEncoderResnetBlock(config, w, widths[index]) for w in inputs)
            attends = resolution in with_attention and config.attn_type == "vanilla"
            level.attn = nn.ModuleList(ChameleonVQVAEEncoderAttnBlock(widths[index]) for _ in inputs if attends)
            width = widths[index]
            if index:
                level.upsample = nn.Module()
                level.upsample.conv = nn.Conv2d(width, width, 3, padding=1)
                resolution *= 2
            levels.insert(0, level)
        self.up = nn.ModuleList(levels)  # as in the official weights, level 0 is the finest and runs last
        self.norm_out = nn.GroupNorm(32, width, eps=1e-6)
        self.conv_out = nn.Conv2d(width, config.in_channels, 3, padding=1)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode."""
        hidden = self.mid.block_2(self.mid.attn_1(self.mid.block_1(self.conv_in(latents))))
        level: Any
        for level in reversed(self.up):
            for position, block in enumerate(level.block):
                hidden = block(hidden)
                if len(level.attn):
                    hidden = level.attn[position](hidden)
            if hasattr(level, "upsample"):
                hidden = level.upsample.conv(functional.interpolate(hidden, scale_factor=2.0, mode="nearest"))
        return self.conv_out(functional.silu(self.norm_out(hidden)))


@register("decoder", "vq_image")
class VQImage(ChameleonVQVAE):
    """Images to codes and back. State-dict names are those of ``model.vqmodel`` in the official weights.

    An image is ``grid`` x ``grid`` codes.
    """

    def __init__(
        self,
        resolution: PositiveInt = 512,
        codes: PositiveInt = 8192,
        embed_dim: PositiveInt = 256,
        base_channels: PositiveInt = 128,
        channel_multiplier: list[PositiveInt] | None = None,
        res_blocks: PositiveInt = 2,
        attention_at: list[PositiveInt] | None = None,
    ) -> None:
        """Build with random weights; the defaults are Chameleon's sizes.

        Args:
            resolution: side of an image in pixels.
            codes: size of the codebook.
            embed_dim: width of a code and of the latents.
            base_channels: width at full resolution, a multiple of 32.
            channel_multiplier: width of each level in units of ``base_channels``; each level but the last halves the resolution.
            res_blocks: residual blocks per level.
            attention_at: resolutions with self-attention.
        """
        config = ChameleonVQVAEConfig(
            resolution=resolution,
            num_embeddings=codes,
            embed_dim=embed_dim,
            latent_channels=embed_dim,
            base_channels=base_channels,
            channel_multiplier=channel_multiplier or [1, 1, 2, 2, 4],
            num_res_blocks=res_blocks,
            attn_resolutions=attention_at,
        )
        self._build(config)

    def _build(self, config: ChameleonVQVAEConfig) -> None:
        super().__init__(config)
        self.decoder = VQDecoder(config)
        self.grid = config.resolution // 2 ** (len(config.channel_multiplier) - 1)
        self.train()  # transformers' model starts in evaluation mode

    @classmethod
    def from_config(cls, config: ChameleonVQVAEConfig) -> "VQImage":
        """Build the tokenizer of a Chameleon configuration (its ``vq_config``), with random weights."""
        model = cls.__new__(cls)
        model._build(config)
        return model

    @classmethod
    def from_official(cls, folder: str | Path) -> "VQImage":
        """Load the image tokenizer from an Anole or Chameleon checkpoint folder (config.json and safetensors).

        Raises:
            MissingWeightsError: the folder lacks a file.
            WeightsError: a weight of the encoder, codebook or decoder is missing.
        """
        from transformers import ChameleonConfig

        folder = Path(folder)
        config: Any = ChameleonConfig.from_pretrained(folder)
        model = cls.from_config(config.vq_config)
        prefix = "model.vqmodel."
        state_dict = {
            k.removeprefix(prefix): v for k, v in read_safetensors_folder(folder).items() if k.startswith(prefix)
        }
        if missing := model.state_dict().keys() - state_dict.keys():
            raise WeightsError(
                f"{folder} lacks {len(missing)} weights of the image tokenizer, e.g. {sorted(missing)[0]}"
            )
        model.load_state_dict(state_dict)
        return model.eval()

    @property
    def codebook(self) -> torch.Tensor:
        """The codes' embeddings (codes, embed_dim)."""
        return self.quantize.embedding.weight

    def fingerprint(self) -> str:
        """sha256 over the names, shapes and float32 bytes of all weights."""
        return fingerprint_of(self.state_dict().items())

    def latents(self, images: torch.Tensor) -> torch.Tensor:
        """Latents (batch, embed_dim, grid, grid) of images in [-1, 1], before quantization."""
        return self.quant_conv(self.encoder(images))

    @torch.no_grad()
    def tokenize(self, images: torch.Tensor) -> torch.Tensor:
        """Codes (batch, grid x grid), in row-major order, of images (batch, 3, resolution, resolution) in [-1, 1]."""
        _, _, codes = self.quantize(self.latents(images))
        return codes.view(len(images), -1)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Images (batch, 3, resolution, resolution) in about [-1, 1] from codes (batch, grid x grid).

        Raises:
            UnknownCodeError: a code is outside the codebook.
            ArgumentError: the number of codes is not grid x grid.
        """
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < len(self.codebook):
            raise UnknownCodeError(
                f"codes range from {int(codes.min())} to {int(codes.max())}; the codebook has {len(self.codebook)}"
            )
        if codes.shape[-1] != self.grid**2:
            raise ArgumentError(f"an image has {self.grid**2} codes; got {codes.shape[-1]}")
        latents = functional.embedding(codes, self.codebook).mT.unflatten(-1, (self.grid, self.grid))
        return self.decoder(self.post_quant_conv(latents))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reconstruct images, with straight-through gradients.

        Returns:
            Images (batch, 3, resolution, resolution), the sum of codebook and commitment loss, and codes (batch, grid x grid).
        """
        quantized, loss, codes = self.quantize(self.latents(images))
        return self.decoder(self.post_quant_conv(quantized)), loss, codes.view(len(images), -1)
