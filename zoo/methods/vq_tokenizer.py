"""Training an image tokenizer on its own: VQ-VAE (arXiv 1711.00937) with an edge loss in place of VQGAN's adversary.

The edge loss is ours: edges carry most of the diagnostic content of a radiograph, and a perceptual loss or a discriminator
would need pretrained weights or a GPU.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch.nn import functional
from torchvision.transforms.v2 import functional as image_functional

from zoo.decoders.vq_image import VQImage
from zoo.finite import check_finite
from zoo.methods.base import Metric, Outputs, ZooModule
from zoo.methods.distributed import is_distributed
from zoo.methods.predictions import Reconstruction, on_cpu
from zoo.ranges import Fraction, NonNegativeFloat, NonNegativeInt
from zoo.registry import Slot, register


def edges(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences of neighbouring pixels along rows and along columns of (batch, channels, height, width)."""
    return images[..., 1:] - images[..., :-1], images[..., 1:, :] - images[..., :-1, :]


@register("method", "vq_tokenizer")
class VQTokenizer(ZooModule):
    """``|x - y| + edge_weight |grad x - grad y| + codebook and commitment losses``."""

    task: ClassVar[str] = "image-feature-extraction"
    input_format: ClassVar[str] = "image (batch, 1 or 3, height, width) float32 in [0, 1], any size"
    output_format: ClassVar[str] = (
        "codes (batch, grid x grid), and images (batch, 3, resolution, resolution) from codes"
    )
    intended_use: ClassVar[str] = "Turning radiographs into tokens and back for an interleaved decoder."

    def __init__(
        self,
        tokenizer: Annotated[VQImage, Slot("decoder")],
        edge_weight: NonNegativeFloat = 2.0,
        restart_every: NonNegativeInt = 25,
        restart_until: Fraction = 0.5,
    ) -> None:
        """Wire the tokenizer.

        Args:
            tokenizer: the image tokenizer to train.
            edge_weight: of the edge loss.
            restart_every: steps between restarts of unused codes (after Jukebox, arXiv 2005.00341); 0 for none.
            restart_until: fraction of training in which they are restarted.
        """
        super().__init__()
        self.tokenizer = tokenizer
        self.edge_weight = edge_weight
        self.restart_every, self.restart_until = restart_every, restart_until

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Pixel values (batch, 3, resolution, resolution) in [-1, 1] of images in [0, 1] of any size."""
        size = [self.tokenizer.config.resolution] * 2
        if list(images.shape[-2:]) != size:
            images = image_functional.resize(images, size, antialias=True)
        return images.expand(-1, 3, -1, -1) * 2 - 1

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reconstructions in [-1, 1], quantization loss and codes of images (batch, 1 or 3, height, width) in [0, 1]."""
        return self.tokenizer(self.prepare(images))

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The sum of reconstruction, edge, codebook and commitment loss."""
        pixel_values = self.prepare(batch["image"])
        reconstruction, quantization_loss, _ = self.tokenizer(pixel_values)
        pairs = zip(edges(reconstruction), edges(pixel_values), strict=True)
        edge_loss = sum(functional.l1_loss(predicted, target) for predicted, target in pairs)
        l1_loss = functional.l1_loss(reconstruction, pixel_values)
        return {"loss": l1_loss + self.edge_weight * edge_loss + quantization_loss}

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Restart unused codes every ``restart_every`` steps, early in training."""
        early = self.global_step <= self.restart_until * self.trainer.estimated_stepping_batches
        if self.restart_every and early and self.global_step % self.restart_every == 0:
            self._restart_unused_codes(self.prepare(batch["image"]))

    @torch.no_grad()
    def _restart_unused_codes(self, images: torch.Tensor) -> None:
        """Move codes that no image of the batch uses to randomly sampled latents of the batch."""
        latents = self.tokenizer.latents(images).movedim(1, -1).flatten(0, 2)
        used = self.tokenizer.tokenize(images).unique()
        unused = torch.ones(len(self.tokenizer.codebook), dtype=torch.bool, device=latents.device)
        unused[used] = False
        sampled = torch.randint(len(latents), (int(unused.sum()),), device=latents.device)
        self.tokenizer.codebook[unused] = latents[sampled]
        if is_distributed():  # each process has sampled from its own batch
            torch.distributed.broadcast(self.tokenizer.codebook.data, src=0)

    def evaluation_step(self, batch: dict[str, Any]) -> Outputs:
        """Mean squared error of each image (on the scale of [0, 1]) and its codes."""
        pixel_values = self.prepare(batch["image"])
        reconstruction, _, codes = self.tokenizer(pixel_values)
        check_finite(reconstruction, "the pixels of the reconstruction")
        errors = ((reconstruction.clamp(-1, 1) - pixel_values) / 2).square()
        return {"squared_error": errors.mean(dim=(1, 2, 3)), "codes": codes}

    def metrics(self) -> dict[str, Metric]:
        """Mean PSNR in decibels, and the fraction of the codebook in use."""
        codes = len(self.tokenizer.codebook)
        return {
            "psnr": lambda o: float(-10 * o["squared_error"].clamp(min=1e-10).log10().mean()),
            "codebook_use": lambda o: o["codes"].unique().numel() / codes,
        }

    def predict_images(self, images: Sequence[torch.Tensor]) -> list[Reconstruction]:  # type: ignore[override]
        """The codes of each image and its reconstruction from them."""
        predictions = []
        for image, original in zip(images, on_cpu(images), strict=True):
            outputs = self.evaluation_step({"image": image[None]})
            prepared = self.prepare(image[None])[0, 0].cpu()
            reconstruction = self.tokenizer.decode(outputs["codes"])[0].mean(dim=0).cpu()
            codes, psnr = tuple(outputs["codes"][0].tolist()), self.metrics()["psnr"](outputs)
            predictions.append(Reconstruction(original, codes, psnr, prepared, reconstruction))
        return predictions

    def example_batch(self) -> dict[str, Any]:
        """One blank image."""
        side = self.tokenizer.config.resolution
        return {"image": torch.zeros(1, 3, side, side)}
