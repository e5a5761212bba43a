"""Training an image tokenizer on its own: VQ-VAE (arXiv 1711.00937) with an edge loss in place of VQGAN's adversary.

The edge loss is ours: radiographs live by their edges, and a perceptual network or a discriminator would need weights or a
GPU that the embedded default does not have.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch.nn import functional
from torchvision.transforms.v2 import functional as image_functional

from zoo.decoders.vq_image import VQImage
from zoo.methods.base import Metric, Outputs, ZooModule
from zoo.methods.distributed import is_distributed
from zoo.methods.predictions import Reconstruction, on_cpu
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
    intended_use: ClassVar[str] = "Turning rendered radiographs into tokens and back for an interleaved decoder."

    def __init__(
        self,
        tokenizer: Annotated[VQImage, Slot("decoder")],
        edge_weight: float = 2.0,
        restart_every: int = 25,
        restart_until: float = 0.5,
    ) -> None:
        """Wire the tokenizer.

        Args:
            tokenizer: the model to train.
            edge_weight: of the edge loss.
            restart_every: steps between restarts of unused codes (after Jukebox, arXiv 2005.00341); 0 for none.
            restart_until: share of the training in which they are restarted.
        """
        super().__init__()
        self.tokenizer = tokenizer
        self.edge_weight = edge_weight
        self.restart_every, self.restart_until = restart_every, restart_until

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1] of any size to (batch, 3, resolution, resolution) in [-1, 1]."""
        size = [self.tokenizer.config.resolution] * 2
        if list(images.shape[-2:]) != size:
            images = image_functional.resize(images, size, antialias=True)
        return images.expand(-1, 3, -1, -1) * 2 - 1

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reconstruction in [-1, 1], quantisation loss and codes of images (batch, 1 or 3, height, width) in [0, 1]."""
        return self.tokenizer(self.prepare(images))

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Reconstruction, edges, codebook and commitment."""
        images = self.prepare(batch["image"])
        rebuilt, quantisation, _ = self.tokenizer(images)
        edge = sum(functional.l1_loss(a, b) for a, b in zip(edges(rebuilt), edges(images), strict=True))
        return {"loss": functional.l1_loss(rebuilt, images) + self.edge_weight * edge + quantisation}

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Restart unused codes every so many steps, early in the training."""
        early = self.global_step <= self.restart_until * self.trainer.estimated_stepping_batches
        if self.restart_every and early and self.global_step % self.restart_every == 0:
            self._restart_unused_codes(self.prepare(batch["image"]))

    @torch.no_grad()
    def _restart_unused_codes(self, images: torch.Tensor) -> None:
        """Move codes that no image of the batch uses onto latents of the batch, drawn at random."""
        latents = self.tokenizer.latents(images).movedim(1, -1).flatten(0, 2)
        used = self.tokenizer.tokens(images).unique()
        unused = torch.ones(len(self.tokenizer.codebook), dtype=torch.bool, device=latents.device)
        unused[used] = False
        drawn = torch.randint(len(latents), (int(unused.sum()),), device=latents.device)
        self.tokenizer.codebook[unused] = latents[drawn]
        if is_distributed():  # each process has drawn its own
            torch.distributed.broadcast(self.tokenizer.codebook.data, src=0)

    def evaluation_step(self, batch: dict[str, Any]) -> Outputs:
        """Squared error of each image (on the scale of [0, 1]) and its codes."""
        images = self.prepare(batch["image"])
        rebuilt, _, codes = self.tokenizer(images)
        return {"squared_error": ((rebuilt.clamp(-1, 1) - images) / 2).square().mean(dim=(1, 2, 3)), "codes": codes}

    def metrics(self) -> dict[str, Metric]:
        """Mean PSNR in decibels, and the share of the codebook in use."""
        codes = len(self.tokenizer.codebook)
        return {
            "psnr": lambda o: float(-10 * o["squared_error"].clamp(min=1e-10).log10().mean()),
            "codebook_use": lambda o: o["codes"].unique().numel() / codes,
        }

    def predict_images(self, images: Sequence[torch.Tensor]) -> list[Reconstruction]:  # type: ignore[override]
        """The codes of each image and what they give back."""
        predictions = []
        for image, original in zip(images, on_cpu(images), strict=True):
            outputs = self.evaluation_step({"image": image[None]})
            prepared, rebuilt = self.prepare(image[None])[0, 0].cpu(), self.tokenizer.decode(outputs["codes"])[0]
            codes, psnr = tuple(outputs["codes"][0].tolist()), self.metrics()["psnr"](outputs)
            predictions.append(Reconstruction(original, codes, psnr, prepared, rebuilt.mean(dim=0).cpu()))
        return predictions

    def example_batch(self) -> dict[str, Any]:
        """One blank image."""
        side = self.tokenizer.config.resolution
        return {"image": torch.zeros(1, 3, side, side)}
