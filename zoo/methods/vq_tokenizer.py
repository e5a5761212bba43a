"""Training an image tokenizer on its own: VQ-VAE (arXiv 1711.00937) with an edge loss in place of VQGAN's adversary.

The edge loss is ours: radiographs live by their edges, and a perceptual network or a discriminator would need weights or a
GPU that the embedded default does not have.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch.nn import functional
from torchvision.transforms.v2 import functional as image_functional

from zoo.decoders.vq_image import VQImage
from zoo.methods.base import Metric, Outputs, ZooModule
from zoo.pictures import contact_sheet
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

    def training_step(self, batch: dict[str, Any], batch_index: int) -> torch.Tensor:
        """Reconstruction, edges, codebook and commitment."""
        images = self.prepare(batch["image"])
        rebuilt, quantisation, _ = self.tokenizer(images)
        edge = sum(functional.l1_loss(a, b) for a, b in zip(edges(rebuilt), edges(images), strict=True))
        loss = functional.l1_loss(rebuilt, images) + self.edge_weight * edge + quantisation
        self.log("train_loss", loss, prog_bar=True, batch_size=len(images), sync_dist=True)
        return loss

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

    @torch.no_grad()
    def predict_image(self, image: torch.Tensor) -> dict[str, Any]:
        """The codes of an image and how well they give it back."""
        outputs = self.evaluation_step({"image": image[None].to(self.device)})
        return {"psnr": self.metrics()["psnr"](outputs), "codes": outputs["codes"][0].tolist()}

    @torch.no_grad()
    def draw_prediction(self, image: torch.Tensor, prediction: dict[str, Any], file: Path) -> None:
        """The image beside what its codes decode to."""
        codes = torch.tensor([prediction["codes"]], device=self.device)
        pair = [self.prepare(image[None])[0, 0].numpy(), self.tokenizer.decode(codes)[0].mean(dim=0).cpu().numpy()]
        contact_sheet(
            pair, ["input", f"decoded from {codes.shape[1]} codes, {prediction['psnr']:.1f} dB"], [[], []], file
        )

    def example_batch(self) -> dict[str, Any]:
        """One blank image."""
        side = self.tokenizer.config.resolution
        return {"image": torch.zeros(1, 3, side, side)}
