"""Two baselines for reasoning segmentation that do not read the question.

``named_grounding`` is an oracle for the mask head: it is given the name of the target in place of a question. ``finding_unet``
is the plain U-Net (Ronneberger et al., arXiv 1505.04597; segmentation-models-pytorch) with a channel for each target of the
dataset. Both are evaluated on the questions that have targets; neither answers in words.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch import nn

from zoo.constants import IMAGENET_MEAN, IMAGENET_STD
from zoo.data.conversations.records import Target, Turn
from zoo.errors import ArgumentError
from zoo.finite import check_finite
from zoo.heads.fitting import Fitting, LetterboxFitting
from zoo.heads.pixel_grounding import PixelGrounding, mask_losses
from zoo.heads.unet_grounding import CHANNELS, load_encoder_weights, normalize_imagenet
from zoo.methods.base import LossModule, Metric, Outputs
from zoo.methods.distributed import index_of_rows
from zoo.methods.exports import Exportable
from zoo.methods.predictions import NamedMasks, on_cpu
from zoo.metrics.segmentation import ciou, dice, giou_by_target, giou_where, question_row, target_index
from zoo.metrics.surfaces import surface_metrics, surface_row
from zoo.pretrained import should_load_weights
from zoo.ranges import NonNegativeFloat, PixelSide, PositiveInt
from zoo.registry import Injected, Slot, register

_KINDS = ("explicit", "implicit", "several")


class _Baseline(LossModule):
    """Decodes a mask for each (image, target name); the loss is ``bce_weight BCE + dice_weight Dice``."""

    task: ClassVar[str] = "image-segmentation"
    surface_tolerance: float | None = None
    """Tolerance of the NSD in pixels and millimetres; outlines are not measured if None, as for cards."""
    input_format: ClassVar[str] = "image (1 or 3, height, width) float32 in [0, 1], and the name of a finding or region"
    output_format: ClassVar[str] = "a mask (height, width)"
    intended_use: ClassVar[str] = "A baseline for reasoning segmentation."
    image_size: int

    @property
    def fitting(self) -> Fitting:
        """How images are fitted into the square."""
        return LetterboxFitting(self.image_size)

    def __init__(
        self, label_names: list[str] | None, region_names: list[str] | None, bce_weight: float, dice_weight: float
    ) -> None:
        super().__init__()
        self.label_names = tuple(label_names or ())
        self.target_names = (*self.label_names, *(region_names or ()))
        if not self.target_names:
            raise ArgumentError(f"{type(self).__name__} needs names of targets, and the dataset has none")
        self.weights = {"bce": bce_weight, "dice": dice_weight}

    def decode_masks(
        self, images: Sequence[torch.Tensor], target_idx: torch.Tensor, image_idx: torch.Tensor
    ) -> torch.Tensor:
        """Mask logits (n, side, side) of targets (n), by index into ``target_names``, on images (n), by index."""
        raise NotImplementedError

    def _targets_of(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Index of the name and of the image of every target.

        Raises:
            ArgumentError: a target has a name that the method does not know.
        """
        targets = [(index, t) for index, turns in enumerate(batch["turns"]) for turn in turns for t in turn.targets]
        names = [target.name for _, target in targets]
        if unknown := set(names) - set(self.target_names):
            raise ArgumentError(
                f"unknown targets: {', '.join(sorted(unknown))}; known are {', '.join(self.target_names)}"
            )
        target_idx = torch.tensor([self.target_names.index(name) for name in names], dtype=torch.long)
        image_idx = torch.tensor([index for index, _ in targets], dtype=torch.long)
        return target_idx.to(self.device), image_idx.to(self.device)

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The weighted sum of both losses, and each."""
        mask_logits = self.decode_masks(batch["image"], *self._targets_of(batch))
        parts = mask_losses(mask_logits, batch["masks"], self.fitting)
        return {"loss": self.weights["bce"] * parts["bce"] + self.weights["dice"] * parts["dice"], **parts}

    def evaluation_step(self, batch: dict[str, Any]) -> Outputs:
        """One row for each question; those without targets have the kind -1."""
        mask_logits = check_finite(
            self.decode_masks(batch["image"], *self._targets_of(batch)), "the logits of the masks"
        )
        masks = [mask for image_masks in batch["masks"] for mask in image_masks]
        rows, kinds, targets, surfaces, start = [], [], [], [], 0
        listed = zip(batch["image"], batch["turns"], batch.get("spacing") or [None] * len(batch["image"]), strict=True)
        for image, turn, spacing in ((image, turn, spacing) for image, turns, spacing in listed for turn in turns):
            end = start + len(turn.masks)
            predicted = (self.fitting.restore(mask_logits[start:end], image.shape[-2:]) > 0).float().cpu()
            true_masks = torch.stack(masks[start:end]).cpu() if end > start else predicted
            rows.append(question_row(predicted, true_masks))
            if self.surface_tolerance is not None:
                surfaces.append(surface_row(predicted, true_masks, spacing, self.surface_tolerance))
            kinds.append(_kind(turn))
            targets.append(target_index(turn.targets, self.vocabulary))
            start = end
        return {
            **index_of_rows(batch, [len(turns) for turns in batch["turns"]]),
            "areas": torch.tensor(rows),
            "kind": torch.tensor(kinds),
            "target": torch.tensor(targets),
            **({"surfaces": torch.tensor(surfaces)} if self.surface_tolerance is not None else {}),
        }

    def metrics(self) -> dict[str, Metric]:
        """GIoU by kind of question and by target, cIoU, Dice, HD95 and NSD, over questions with targets."""

        def with_targets(outputs: Outputs) -> torch.Tensor:
            return outputs["areas"][outputs["kind"] >= 0]

        return {
            **{f"giou_{name}": giou_where("kind", index) for index, name in enumerate(_KINDS)},
            "ciou": lambda o: ciou(with_targets(o)),
            "dice": lambda o: dice(with_targets(o)),
            **giou_by_target(self.vocabulary),
            **(surface_metrics() if self.surface_tolerance is not None else {}),
        }

    def predict_images(self, images: Sequence[torch.Tensor]) -> list[NamedMasks]:  # type: ignore[override]
        """A mask of each finding."""
        target_idx = torch.arange(len(self.label_names), device=self.device)
        predictions = []
        for image, original in zip(images, on_cpu(images), strict=True):
            mask_logits = self.decode_masks([image], target_idx, torch.zeros_like(target_idx))
            check_finite(mask_logits, "the logits of the masks")
            masks = (self.fitting.restore(mask_logits, image.shape[-2:]) > 0).float().cpu()
            predictions.append(NamedMasks(original, self.label_names, masks))
        return predictions

    def example_batch(self) -> dict[str, Any]:
        """One image with one target."""
        turn = Turn("", "", targets=(Target(self.target_names[0]),), kind="explicit")
        side = self.image_size
        return {"image": [torch.zeros(3, side, side)], "turns": [[turn]], "masks": [torch.ones(1, side, side)]}


def _kind(turn: Turn) -> int:
    return _KINDS.index(turn.kind) if turn.masks and turn.kind in _KINDS else -1


@register("method", "named_grounding")
class NamedGrounding(_Baseline):
    """A mask head whose prompt is a learned embedding of the target's name."""

    base_prefixes: ClassVar[dict[str, str]] = {"unet.": "grounding."}

    def __init__(
        self,
        grounding: Annotated[Callable[..., PixelGrounding], Slot("head")],
        label_names: Annotated[list[str] | None, Injected] = None,
        region_names: Annotated[list[str] | None, Injected] = None,
        width: PositiveInt = 128,
        bce_weight: NonNegativeFloat = 2.0,
        dice_weight: NonNegativeFloat = 0.5,
    ) -> None:
        """Wire the head.

        Args:
            grounding: builder of the mask head.
            label_names: findings with their sides, which are predicted; the dataset's.
            region_names: other targets that questions are about; the dataset's.
            width: of a name's embedding.
            bce_weight: of the binary cross-entropy.
            dice_weight: of the Dice loss.
        """
        super().__init__(label_names, region_names, bce_weight, dice_weight)
        self.names = nn.Embedding(len(self.target_names), width)
        self.grounding = grounding(language_width=width)
        self.image_size = self.grounding.image_size

    @property
    def fitting(self) -> Fitting:
        """The head's."""
        return self.grounding.fitting

    def decode_masks(
        self, images: Sequence[torch.Tensor], target_idx: torch.Tensor, image_idx: torch.Tensor
    ) -> torch.Tensor:
        """See the base class."""
        squares = torch.stack([self.fitting.fit(image) for image in images]).to(self.device)
        return self.grounding(self.grounding.encode_images(squares), self.names(target_idx), image_idx)


@register("method", "finding_unet")
class FindingUnet(_Baseline):
    """An smp U-Net with a channel for each target."""

    def __init__(
        self,
        label_names: Annotated[list[str] | None, Injected] = None,
        region_names: Annotated[list[str] | None, Injected] = None,
        encoder: str = "tu-efficientnet_lite0",
        weights: str | None = None,
        image_size: PixelSide = 256,
        channels: list[PositiveInt] | None = None,
        bce_weight: NonNegativeFloat = 2.0,
        dice_weight: NonNegativeFloat = 0.5,
    ) -> None:
        """Build.

        Args:
            label_names: findings with their sides, which are predicted; the dataset's.
            region_names: other targets that questions are about; the dataset's.
            encoder: an smp encoder.
            weights: of the encoder, from a file or package as in :class:`~zoo.heads.unet_grounding.UnetGrounding`.
            image_size: side of the letterboxed images, a multiple of 32.
            channels: of the decoder, as in :class:`~zoo.heads.unet_grounding.UnetGrounding`, which can start from this model.
            bce_weight: of the binary cross-entropy.
            dice_weight: of the Dice loss.
        """
        import segmentation_models_pytorch as smp

        super().__init__(label_names, region_names, bce_weight, dice_weight)
        channels = channels or CHANNELS
        self.unet = smp.Unet(encoder, len(channels), None, decoder_channels=channels, classes=len(self.target_names))
        if weights and should_load_weights():
            load_encoder_weights(self.unet.encoder, weights)
        self.image_size = image_size

    def decode_masks(
        self, images: Sequence[torch.Tensor], target_idx: torch.Tensor, image_idx: torch.Tensor
    ) -> torch.Tensor:
        """See the base class."""
        squares = torch.stack([self.fitting.fit(image) for image in images]).to(self.device)
        return self.unet(normalize_imagenet(squares))[image_idx, target_idx]

    def exportable(self) -> Exportable:
        """Letterboxed images to masks."""
        return Exportable(
            module=_Masks(self).eval(),
            input_shape=(3, self.image_size, self.image_size),
            output_name="masks",
            output="probabilities of masks (batch, targets, side, side) float32",
            names=self.target_names,
            preprocessing="the longer side resized, padded right and below with 0, not yet normalised; grey images repeated",
        )


class _Masks(nn.Module):
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, method: FindingUnet) -> None:
        super().__init__()
        self.unet = method.unet
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        masks: torch.Tensor = self.unet((images - self.mean) / self.std).sigmoid()
        return masks
