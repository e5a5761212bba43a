"""What every pixel grounding head shares: the token's projection and the losses.

A head decodes one mask for each language token. Reconstructed: MedSeg-R's head (arXiv 2506.10465) is not public; the mechanism
is LISA's (arXiv 2308.00692).
"""

from abc import abstractmethod
from collections.abc import Sequence
from hashlib import sha256

import torch
from torch import nn
from torch.nn import functional

from zoo.heads.fitting import Fitting, LetterboxFitting
from zoo.pretrained import fingerprint_of

Features = list[torch.Tensor]
"""Image features of a batch: tensors whose first dimension is the image."""


class PixelGrounding(nn.Module):
    """Masks from image features and language tokens.

    ``image_size`` is the side of the square that images are fitted into by ``fitting``. ``cacheable`` says that :meth:`encode_images` is frozen, so
    that its result may be kept on disk. ``feature_widths`` are the channels of the feature maps, finest first.
    """

    image_size: int
    feature_widths: list[int]
    cacheable: bool = False

    def __init__(self, language_width: int, prompt_width: int) -> None:
        """Project tokens as LISA does: Linear, ReLU, Linear."""
        super().__init__()
        self.projection = nn.Sequential(
            nn.Linear(language_width, language_width), nn.ReLU(), nn.Linear(language_width, prompt_width)
        )

    @property
    def fitting(self) -> Fitting:
        """How images are fitted into the square; letterboxed, with black padding, unless a head overrides it."""
        return LetterboxFitting(self.image_size)

    @abstractmethod
    def encode_images(self, images: torch.Tensor) -> Features:
        """Images (batch, 3, image_size, image_size) in [0, 1], fitted by ``fitting``, to features."""

    @abstractmethod
    def decode_masks(self, features: Features, prompts: torch.Tensor) -> torch.Tensor:
        """Features of n images and one prompt each (n, prompt_width) to mask logits (n, side, side)."""

    def image_fingerprint(self) -> str:
        """What the features of an image depend on: the frozen weights, as stored, the buffers and the fitting."""
        frozen = [(name, value) for name, value in self.named_parameters() if not value.requires_grad]
        weights = fingerprint_of([*frozen, *self.named_buffers()])
        return sha256(f"{weights} {self.fitting}".encode()).hexdigest()

    def forward(self, features: Features, tokens: torch.Tensor, image_idx: torch.Tensor) -> torch.Tensor:
        """One mask for each language token.

        Args:
            features: of the images, from :meth:`encode_images`.
            tokens: language tokens (n, language_width) of all images together.
            image_idx: index of the image (n) that each token refers to.

        Returns:
            Mask logits (n, side, side) over the fitted square.
        """
        prompts: torch.Tensor = self.projection(tokens.to(next(self.projection.parameters()).dtype))
        if not len(prompts):  # SAM's attention and grouped convolutions take no empty batch
            return prompts.sum().expand(0, self.image_size, self.image_size)
        return self.decode_masks([part[image_idx] for part in features], prompts)


def mask_losses(logits: torch.Tensor, targets: Sequence[torch.Tensor], fitting: Fitting) -> dict[str, torch.Tensor]:
    """Binary cross-entropy, and Dice loss ``1 - (2 <p, m> + 1) / (|p| + |m| + 1)``, each the mean over masks.

    Both are over the pixels of the image; padding does not count. An empty mask counts in the cross-entropy only: its Dice would
    keep a rare finding from ever being predicted.

    Args:
        logits: (n, side, side) over fitted squares.
        targets: masks of 0 and 1 (m, height, width) of each image, n in all; without any, the losses are 0.
        fitting: of the images into the squares.
    """
    if not len(logits):
        zero = logits.sum() * 0.0
        return {"bce": zero, "dice": zero}
    fitted = [fitting.fit_masks(masks, logits.shape[-1]) for masks in targets if len(masks)]
    masks = torch.cat([squares for squares, _ in fitted]).to(logits.device)
    inside = torch.cat([area.expand(len(squares), -1, -1) for squares, area in fitted]).to(logits.device)
    probabilities = logits.float().sigmoid() * inside
    intersection = (probabilities * masks).sum(dim=(1, 2))
    area = masks.sum(dim=(1, 2))
    present = area > 0
    dice = 1 - (2 * intersection + 1) / (probabilities.sum(dim=(1, 2)) + area + 1)
    bce = functional.binary_cross_entropy_with_logits(logits.float(), masks, reduction="none") * inside
    return {
        "bce": (bce.sum(dim=(1, 2)) / inside.sum(dim=(1, 2))).mean(),
        "dice": (dice * present).sum() / present.sum().clamp(min=1),
    }
