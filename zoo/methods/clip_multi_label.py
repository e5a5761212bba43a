"""Multi-label classification with a frozen CLIP and an adapter: a pair of prompts for each label (Tiu et al., CheXzero, 2022).

The logit of a label is that of its prompt less that of its denial, so that its sigmoid is CheXzero's softmax over the pair. Training with
binary cross-entropy over the labels that are known is ours (reconstructed).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from torch.nn import functional

from zoo.adapters.few_shot import FewShotAdapter
from zoo.data.classification.balance import ClassWeights, positive_weights
from zoo.encoders.clip import ClipEncoder
from zoo.errors import ArgumentError
from zoo.methods.base import Metric, Outputs
from zoo.methods.clip_classification import ClipClassification
from zoo.methods.predictions import Findings, on_cpu
from zoo.metrics.multi_label import label_auroc, label_macro_f1, mean_auroc, mean_average_precision
from zoo.precision import BasePrecision
from zoo.registry import Injected, Slot, register

TEMPLATE = "a medical image of {}."


@register("method", "clip_multi_label")
class ClipMultiLabel(ClipClassification):
    """``BCE(logit(label) - logit(denial), target)``, over the targets that are not NaN."""

    output_format: ClassVar[str] = (
        "logits (batch, labels); their sigmoid gives probabilities in the order of class_names"
    )

    def __init__(
        self,
        clip: Annotated[ClipEncoder, Slot("vision_language_encoder")],
        adapter: Annotated[Callable[..., FewShotAdapter], Slot("adapter")],
        class_names: Annotated[list[str], Injected],
        template: Annotated[str, Injected] = TEMPLATE,
        denial: str = "no {}",
        class_weights: ClassWeights | None = None,
        base_precision: BasePrecision | None = None,
    ) -> None:
        """Freeze the CLIP and build the adapter on it, with the labels and then their denials as its classes.

        Args:
            clip: the base.
            adapter: builder of the adapter, one that learns by the loss alone.
            class_names: the labels, in the order of the targets.
            template: prompt for a label or a denial, with {} for it; the data set's if it has one.
            denial: of a label, with {} for its name.
            class_weights: "balanced" weights the presence of a label by its negatives / positives in the training split.
            base_precision: of the CLIP; as stored if None. Trained weights are float32.

        Raises:
            ArgumentError: the denial has no {}, or the adapter has a loss of its own, or looks at the classes of the images.
        """
        if "{}" not in denial:
            raise ArgumentError(f"denial is '{denial}'; it needs {{}} for the name of a label")
        names = [name.lower() for name in class_names]
        pairs = [*names, *(denial.replace("{}", name) for name in names)]
        super().__init__(clip, adapter, pairs, template, class_weights=class_weights, base_precision=base_precision)
        kind = type(self.adapter)
        if kind.loss is not FewShotAdapter.loss or kind.observes:
            raise ArgumentError(
                f"{kind.__name__} needs images of one class each; use another adapter, such as lora or coop"
            )
        self.class_names = list(class_names)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, labels) of images (batch, 1 or 3, height, width) in [0, 1]."""
        stated, denied = self.adapter(self.clip, images).float().chunk(2, dim=-1)
        return stated - denied

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Binary cross-entropy, averaged over the known targets of the batch; 0 without any."""
        logits, targets = self(batch["image"]), batch["labels"].to(torch.float32)
        known = ~targets.isnan()
        parts = functional.binary_cross_entropy_with_logits(
            logits, targets.nan_to_num(0.0), reduction="none", pos_weight=self.adapter.class_weights
        )
        return {"loss": (parts * known).sum() / known.sum().clamp(min=1)}

    def weights_by_class(self, data: Any) -> torch.Tensor:
        """Weights of positive targets (labels) from the training split."""
        return positive_weights(data.split("train").targets)

    def evaluation_step(self, batch: dict[str, Any]) -> Outputs:
        """Probabilities and targets (batch, labels)."""
        return {"probabilities": self(batch["image"]).sigmoid(), "targets": batch["labels"].float()}

    def metrics(self) -> dict[str, Metric]:
        """Mean AUROC, mean average precision and macro F1 at 0.5, and the AUROC of each label; NaN where undefined."""

        def over(function: Callable[[torch.Tensor, torch.Tensor], float], outputs: Outputs) -> float:
            return function(outputs["probabilities"], outputs["targets"])

        def of_label(index: int, outputs: Outputs) -> float:
            return label_auroc(outputs["probabilities"][:, index], outputs["targets"][:, index])

        labels = {f"auroc_{name.lower().replace(' ', '_')}": index for index, name in enumerate(self.class_names)}
        return {
            "auroc": partial(over, mean_auroc),
            "map": partial(over, mean_average_precision),
            "macro_f1": partial(over, label_macro_f1),
            **{name: partial(of_label, index) for name, index in labels.items()},
        }

    def predict_images(self, images: Sequence[torch.Tensor]) -> list[Findings]:  # type: ignore[override]
        """The probability of each label."""
        rows = self(self.clip.stack(images)).sigmoid().tolist()
        return [
            Findings(image, dict(zip(self.class_names, row, strict=True)))
            for image, row in zip(on_cpu(images), rows, strict=True)
        ]

    def example_batch(self) -> dict[str, Any]:
        """One blank image with every label."""
        return {"image": torch.zeros(1, 3, *self.clip.image_size), "labels": torch.ones(1, len(self.class_names))}
