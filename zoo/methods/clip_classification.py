"""Few-shot classification with a frozen CLIP: the one module that NEARL-CLIP and all its peers are trained by."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_auroc, multiclass_f1_score

from zoo.adapters.few_shot import FewShotAdapter
from zoo.data.module import ZooData
from zoo.encoders.clip import ClipEncoder
from zoo.methods.base import Metric, Outputs, ZooModule
from zoo.pictures import draw_probabilities
from zoo.registry import Slot, Supplied, register

TEMPLATE = "a chest radiograph showing {}."


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
        class_names: Annotated[list[str], Supplied],
        template: str = TEMPLATE,
    ) -> None:
        """Freeze the CLIP and build the adapter on it.

        Args:
            clip: the base.
            adapter: builder of the adapter.
            class_names: the classes, in the order of the labels.
            template: prompt for a class, with {} for its name.
        """
        super().__init__()
        self.clip = clip.requires_grad_(False)
        self.class_names = class_names
        self.adapter = adapter(clip=clip, class_names=class_names, template=template)
        for parameter in self.adapter.parameters_in(clip):
            parameter.requires_grad_(True)

    def train(self, mode: bool = True) -> "ClipClassification":
        """Switch mode; the frozen CLIP stays in evaluation mode."""
        super().train(mode)
        self.clip.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes) of images (batch, 1 or 3, height, width) in [0, 1]."""
        return self.adapter(self.clip, images)

    def prepare_fit(self, data: ZooData) -> None:  # type: ignore[override]
        """Let the adapter look at the shots."""
        self.clip.eval()
        self.adapter.observe(self.clip, data.in_order("train"), data.in_order("val"))

    def training_step(self, batch: dict[str, Any], batch_index: int) -> torch.Tensor:
        """Cross-entropy."""
        loss = functional.cross_entropy(self(batch["image"]), batch["label"])
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch["label"]), sync_dist=True)
        return loss

    def evaluation_step(self, batch: dict[str, Any]) -> Outputs:
        """Probabilities (batch, classes) and labels."""
        return {"probabilities": self(batch["image"]).float().softmax(dim=-1), "labels": batch["label"]}

    def metrics(self) -> dict[str, Metric]:
        """Accuracy, macro F1 and macro one-versus-rest AUROC."""
        classes = len(self.class_names)

        def over(function: Callable[..., torch.Tensor], **options: Any) -> Metric:
            return lambda o: float(function(o["probabilities"], o["labels"], num_classes=classes, **options))

        return {
            "accuracy": over(multiclass_accuracy, average="micro"),
            "macro_f1": over(multiclass_f1_score, average="macro"),
            "auroc": over(multiclass_auroc, average="macro"),
        }

    @torch.no_grad()
    def predict_image(self, image: torch.Tensor) -> dict[str, Any]:
        """The likeliest class, and every class with its probability, likeliest first."""
        probabilities = self(image[None].to(self.device)).float().softmax(dim=-1)[0].tolist()
        ranked = sorted(zip(self.class_names, probabilities, strict=True), key=lambda pair: -pair[1])
        return {"class": ranked[0][0], "probabilities": dict(ranked)}

    def draw_prediction(self, image: torch.Tensor, prediction: dict[str, Any], file: Path) -> None:
        """The image beside bars of the probabilities."""
        draw_probabilities(image, prediction["probabilities"], file)

    def example_batch(self) -> dict[str, Any]:
        """One blank image of the first class."""
        return {"image": torch.zeros(1, 3, *self.clip.image_size), "label": torch.zeros(1, dtype=torch.long)}
