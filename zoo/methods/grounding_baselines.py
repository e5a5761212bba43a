"""Two baselines for reasoning segmentation that read no question: what an oracle or a fixed list of channels can draw.

``named_grounding`` is an upper bound for the mask head: an oracle says what is asked for. ``finding_unet`` is the plain U-Net
(Ronneberger et al., arXiv 1505.04597; segmentation-models-pytorch) with a channel for each finding, side and region. Both are
measured on the questions that have targets; neither answers in words.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch import nn

from zoo.data.chest_drr.text.labels import LABELS, NAMES
from zoo.data.conversations.records import Target, Turn
from zoo.data.io.letterbox import letterbox, unletterbox
from zoo.heads.pixel_grounding import PixelGrounding, mask_losses
from zoo.heads.unet_grounding import CHANNELS, load_encoder_weights, normalize_imagenet
from zoo.methods.base import LossModule, Metric, Outputs
from zoo.methods.distributed import index_of_rows
from zoo.methods.predictions import NamedMasks, on_cpu
from zoo.metrics.segmentation import ciou, dice, giou_by_target, giou_where, question_row, target_index
from zoo.registry import Slot, register

_KINDS = ("explicit", "implicit", "several")


class _Baseline(LossModule):
    """Draws a mask for each (image, name); ``bce_weight BCE + dice_weight Dice``."""

    task: ClassVar[str] = "image-segmentation"
    input_format: ClassVar[str] = "image (1 or 3, height, width) float32 in [0, 1], and the name of a finding or region"
    output_format: ClassVar[str] = "a mask (height, width)"
    intended_use: ClassVar[str] = "A baseline for reasoning segmentation on rendered radiographs."
    image_size: int

    def __init__(self, bce_weight: float = 2.0, dice_weight: float = 0.5) -> None:
        super().__init__()
        self.weights = {"bce": bce_weight, "dice": dice_weight}

    def draw(self, images: Sequence[torch.Tensor], names: torch.Tensor, image_of: torch.Tensor) -> torch.Tensor:
        """Mask logits (n, side, side) of names (n) on images."""
        raise NotImplementedError

    def _asked(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Name and image of every target."""
        asked = [(index, t) for index, turns in enumerate(batch["turns"]) for turn in turns for t in turn.targets]
        names = torch.tensor([NAMES.index(target.name) for _, target in asked], dtype=torch.long)
        owners = torch.tensor([index for index, _ in asked], dtype=torch.long)
        return names.to(self.device), owners.to(self.device)

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The weighted sum of both losses, and each."""
        parts = mask_losses(self.draw(batch["image"], *self._asked(batch)), batch["masks"])
        return {"loss": self.weights["bce"] * parts["bce"] + self.weights["dice"] * parts["dice"], **parts}

    def evaluation_step(self, batch: dict[str, Any]) -> Outputs:
        """A row a question; those without targets are marked by the kind -1."""
        drawn = self.draw(batch["image"], *self._asked(batch))
        masks = [mask for own in batch["masks"] for mask in own]
        rows, kinds, targets, start = [], [], [], 0
        for image, turn in ((i, t) for i, turns in zip(batch["image"], batch["turns"], strict=True) for t in turns):
            end = start + len(turn.masks)
            made = (unletterbox(drawn[start:end], image.shape[-2:]) > 0).float().cpu()
            rows.append(question_row(made, torch.stack(masks[start:end]).cpu() if end > start else made))
            kinds.append(_kind(turn))
            targets.append(target_index(turn.targets))
            start = end
        return {
            **index_of_rows(batch, [len(turns) for turns in batch["turns"]]),
            "areas": torch.tensor(rows),
            "kind": torch.tensor(kinds),
            "target": torch.tensor(targets),
        }

    def metrics(self) -> dict[str, Metric]:
        """GIoU by kind of question and by target, cIoU and Dice, over questions with targets."""

        def asked(outputs: Outputs) -> torch.Tensor:
            return outputs["areas"][outputs["kind"] >= 0]

        return {
            **{f"giou_{name}": giou_where("kind", index) for index, name in enumerate(_KINDS)},
            "ciou": lambda o: ciou(asked(o)),
            "dice": lambda o: dice(asked(o)),
            **giou_by_target(),
        }

    def predict_images(self, images: Sequence[torch.Tensor]) -> list[NamedMasks]:  # type: ignore[override]
        """A mask of each finding."""
        names = torch.arange(len(LABELS), device=self.device)
        predictions = []
        for image, original in zip(images, on_cpu(images), strict=True):
            logits = unletterbox(self.draw([image], names, torch.zeros_like(names)), image.shape[-2:])
            predictions.append(NamedMasks(original, tuple(NAMES[: len(LABELS)]), (logits > 0).float().cpu()))
        return predictions

    def example_batch(self) -> dict[str, Any]:
        """One image with one target."""
        turn = Turn("", "", targets=(Target("cardiomegaly"),), kind="explicit")
        side = self.image_size
        return {"image": [torch.zeros(3, side, side)], "turns": [[turn]], "masks": [torch.ones(1, side, side)]}


def _kind(turn: Turn) -> int:
    return _KINDS.index(turn.kind) if turn.masks and turn.kind in _KINDS else -1


@register("method", "named_grounding")
class NamedGrounding(_Baseline):
    """A mask head whose token is a learned embedding of the true target's name."""

    base_prefixes: ClassVar[dict[str, str]] = {"unet.": "grounding."}

    def __init__(
        self,
        grounding: Annotated[Callable[..., PixelGrounding], Slot("head")],
        width: int = 128,
        bce_weight: float = 2.0,
        dice_weight: float = 0.5,
    ) -> None:
        """Wire the head.

        Args:
            grounding: builder of the mask head.
            width: of a name's embedding.
            bce_weight: of the binary cross-entropy.
            dice_weight: of the Dice loss.
        """
        super().__init__(bce_weight, dice_weight)
        self.names = nn.Embedding(len(NAMES), width)
        self.grounding = grounding(language_width=width)
        self.image_size = self.grounding.image_size

    def draw(self, images: Sequence[torch.Tensor], names: torch.Tensor, image_of: torch.Tensor) -> torch.Tensor:
        """See the base class."""
        squares = torch.stack([letterbox(image, self.image_size) for image in images]).to(self.device)
        return self.grounding(self.grounding.encode_images(squares), self.names(names), image_of)


@register("method", "finding_unet")
class FindingUnet(_Baseline):
    """An smp U-Net with a channel for each of :data:`NAMES`."""

    def __init__(
        self,
        encoder: str = "tu-efficientnet_lite0",
        weights: str | None = None,
        image_size: int = 256,
        channels: list[int] | None = None,
        bce_weight: float = 2.0,
        dice_weight: float = 0.5,
    ) -> None:
        """Build.

        Args:
            encoder: an smp encoder.
            weights: of the encoder, as :class:`~zoo.heads.unet_grounding.UnetGrounding` takes them from a file or package.
            image_size: side of the square that images are fitted into, a multiple of 32.
            channels: of the decoder, as :class:`~zoo.heads.unet_grounding.UnetGrounding` has them, which can start from it.
            bce_weight: of the binary cross-entropy.
            dice_weight: of the Dice loss.
        """
        import segmentation_models_pytorch as smp

        from zoo.pretrained import should_load_weights

        super().__init__(bce_weight, dice_weight)
        channels = channels or CHANNELS
        self.unet = smp.Unet(encoder, len(channels), None, decoder_channels=channels, classes=len(NAMES))
        if weights and should_load_weights():
            load_encoder_weights(self.unet.encoder, weights)
        self.image_size = image_size

    def draw(self, images: Sequence[torch.Tensor], names: torch.Tensor, image_of: torch.Tensor) -> torch.Tensor:
        """See the base class."""
        squares = torch.stack([letterbox(image, self.image_size) for image in images]).to(self.device)
        return self.unet(normalize_imagenet(squares))[image_of, names]
