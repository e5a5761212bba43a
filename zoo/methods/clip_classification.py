"""Few-shot classification with a frozen CLIP: the LightningModule of NEARL and of all its baselines."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import nn

from zoo.adapters.few_shot import ClassPrompts, FewShotAdapter
from zoo.adapters.lora import LoRA
from zoo.data.classification.balance import ClassWeights, balanced_class_weights
from zoo.encoders.clip import ClipEncoder
from zoo.errors import ArgumentError, UnsupportedError
from zoo.finite import check_finite
from zoo.methods.base import Metric, Outputs, ZooModule
from zoo.methods.exports import Exportable
from zoo.methods.predictions import Classification, on_cpu
from zoo.metrics.classification import accuracy, macro_auroc, macro_f1
from zoo.precision import BasePrecision
from zoo.registry import Injected, Slot, register

TEMPLATE = "a medical image of {}."
"""Prompt for a class where neither recipe nor data set has one."""


@register("method", "clip_adaptation")
class ClipClassification(ZooModule):
    """A frozen CLIP and an adapter; cross-entropy on CLIP's scaled cosine logits."""

    frozen: ClassVar[tuple[str, ...]] = ("clip",)
    task: ClassVar[str] = "image-classification"
    input_format: ClassVar[str] = "image (batch, 1 or 3, height, width) float32 in [0, 1], any size"
    output_format: ClassVar[str] = "logits (batch, classes); softmax gives probabilities in the order of class_names"

    def __init__(
        self,
        clip: Annotated[ClipEncoder, Slot("vision_language_encoder")],
        adapter: Annotated[Callable[..., FewShotAdapter], Slot("adapter")],
        class_names: Annotated[list[str], Injected],
        template: Annotated[str, Injected] = TEMPLATE,
        class_texts: Annotated[dict[str, list[str]] | None, Injected] = None,
        ensemble: bool = False,
        class_weights: ClassWeights | None = None,
        base_precision: BasePrecision | None = None,
    ) -> None:
        """Freeze the CLIP and build the adapter on it.

        Args:
            clip: the base.
            adapter: builder of the adapter.
            class_names: the classes, in the order of the labels.
            template: prompt for a class, with {} for its name; the data set's if it has one.
            class_texts: descriptions of each class, by its name; the data set's if it has any.
            ensemble: whether the descriptions stand for a class together, in place of its prompt.
            class_weights: "balanced" weights a class in the loss by the inverse of its share of the training images, with mean 1.
            base_precision: of the CLIP; as stored if None. Trained weights are float32.

        Raises:
            ArgumentError: classes are weighted, and the adapter has nothing that a loss trains.
        """
        super().__init__()
        self.base_precision = base_precision
        self.clip, self.image_transform = clip.requires_grad_(False).eval(), clip.transform
        self.class_names = class_names
        self.adapter = adapter(clip=clip, classes=ClassPrompts(class_names, template, class_texts or {}, ensemble))
        for parameter in self.adapter.clip_parameters(clip):
            parameter.requires_grad_(True)
        self.class_weights = class_weights
        if class_weights and not any(parameter.requires_grad for parameter in self.parameters()):
            raise ArgumentError(f"class_weights is for a loss, and {type(self.adapter).__name__} trains nothing by one")

    def train(self, mode: bool = True) -> "ClipClassification":
        """Switch mode; the frozen CLIP stays in evaluation mode, but for what the adapter put into it."""
        super().train(mode)
        self.clip.eval()
        self.adapter.train(mode)
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes) of images (batch, 1 or 3, height, width) in [0, 1]."""
        logits: torch.Tensor = self.adapter(self.clip, images)
        return logits

    def sharded_modules(self) -> list[nn.Module]:
        """The CLIP.

        Raises:
            ArgumentError: the adapter processes the shots before training, on each process alone.
        """
        if self.adapter.observes:
            raise ArgumentError(
                f"{type(self.adapter).__name__} processes the shots before training, which needs unsharded weights; use ddp"
            )
        return [self.clip]

    def on_fit_start(self) -> None:
        """Let the adapter process the shots, unless a checkpoint holds the result.

        Raises:
            ArgumentError: there is no data module, and the adapter or the weights of the classes need one.
        """
        super().on_fit_start()
        if self.class_weights:
            self.adapter.class_weights = self.weights_by_class(self._data("class_weights")).to(self.device)
        if self._restored or not self.adapter.observes:
            return
        self._data(type(self.adapter).__name__)
        self.clip.eval()
        self.adapter.observe(self.clip, self._batches("train"), self._batches("val"))

    def weights_by_class(self, data: Any) -> torch.Tensor:
        """Weights of the loss (classes) from the training split."""
        return balanced_class_weights(data.class_counts("train"))

    def _data(self, reason: str) -> Any:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is None:
            raise ArgumentError(f"{reason} reads the training images; pass a data module to Trainer.fit")
        return data

    def on_train_epoch_end(self) -> None:
        """Let the adapter process the validation images, if it does so."""
        super().on_train_epoch_end()
        if self.adapter.observes:
            self.adapter.end_epoch(self.clip, self._batches("val"))

    def on_train_end(self) -> None:
        """Let the adapter finish with the validation images, if it does so."""
        super().on_train_end()
        if self.adapter.observes:
            self.adapter.finish(self.clip, self._batches("val"))

    def _batches(self, split: str) -> Iterator[dict[str, Any]]:
        for batch in self.trainer.datamodule.eval_dataloader(split, distributed=False):  # type: ignore[attr-defined]
            yield self.transfer_batch_to_device(batch, self.device, 0)

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The adapter's loss."""
        return {"loss": self.adapter.loss(self.clip, batch["image"], batch["label"])}

    def evaluation_step(self, batch: dict[str, Any]) -> Outputs:
        """Probabilities (batch, classes) and labels."""
        logits = check_finite(self(batch["image"]).float(), "the logits of the classes")
        return {"probabilities": logits.softmax(dim=-1), "labels": batch["label"]}

    def metrics(self) -> dict[str, Metric]:
        """Accuracy, macro F1 and macro one-versus-rest AUROC, the means over the classes that have images."""

        def over(function: Callable[[torch.Tensor, torch.Tensor], float]) -> Metric:
            return lambda outputs: function(outputs["probabilities"], outputs["labels"])

        return {"accuracy": over(accuracy), "macro_f1": over(macro_f1), "auroc": over(macro_auroc)}

    def predict_images(self, images: Sequence[torch.Tensor]) -> list[Classification]:  # type: ignore[override]
        """The probability of each class, and the adapter's attention map if it has one."""
        logits, attention = self.adapter.logits_and_attention(self.clip, self.clip.stack(images))
        rows = check_finite(logits.float(), "the logits of the classes").softmax(dim=-1).tolist()
        maps = [None] * len(rows) if attention is None else list(attention.float().cpu())
        return [
            Classification(
                image,
                dict(zip(self.class_names, row, strict=True)),
                attention_map,
                self.clip.transform.box(image.shape[-2], image.shape[-1]),
            )
            for image, row, attention_map in zip(on_cpu(images), rows, maps, strict=True)
        ]

    def exportable(self) -> Exportable:
        """Images of the CLIP's size to probabilities."""
        return Exportable(
            module=_Probabilities(self).eval(),
            input_shape=(3, *self.clip.image_size),
            output_name="probabilities",
            output="probabilities (batch, classes) float32",
            names=tuple(self.class_names),
            preprocessing=f"{self.clip.transform.describe()}, not yet normalised; grey images repeated",
        )

    def save_merged(self, folder: Path) -> None:
        """``open_clip_model.safetensors``, the CLIP with the adapter's LoRA in its weights, and ``classes.json``.

        Raises:
            UnsupportedError: the adapter is not LoRA.
        """
        if not isinstance(self.adapter, LoRA):
            raise UnsupportedError(f"{type(self.adapter).__name__} is no LoRA, so nothing can be merged")
        self.adapter.merge(self.clip)
        folder.mkdir(parents=True)
        state = {name: value.contiguous().clone() for name, value in self.clip.model.state_dict().items()}
        save_file(state, folder / "open_clip_model.safetensors")
        classes = dict(zip(self.class_names, self.adapter.classes.prompts(), strict=True))
        (folder / "classes.json").write_text(json.dumps(classes, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def example_batch(self) -> dict[str, Any]:
        """One blank image of the first class."""
        return {"image": torch.zeros(1, 3, *self.clip.image_size), "label": torch.zeros(1, dtype=torch.long)}


class _Probabilities(nn.Module):
    def __init__(self, method: ClipClassification) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.method.adapter(self.method.clip, images).float().softmax(dim=-1)
