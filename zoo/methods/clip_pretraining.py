"""Contrastive pretraining of a CLIP on images and reports (Radford et al., arXiv 2103.00020), with open_clip's loss."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from torchmetrics.functional.classification import binary_auroc

from zoo.encoders.clip import ClipEncoder
from zoo.methods.base import Metric, Outputs, ZooModule
from zoo.methods.distributed import is_distributed
from zoo.methods.predictions import Findings, on_cpu
from zoo.registry import Injected, Slot, register

_LARGEST_SCALE = 4.6052  # log 100, CLIP's bound on the temperature


@register("method", "clip_pretraining")
class ClipPretraining(ZooModule):
    """Trains both towers so that an image is nearest to its own report."""

    task: ClassVar[str] = "zero-shot-image-classification"
    input_format: ClassVar[str] = "image (batch, 1 or 3, height, width) float32 in [0, 1]; texts as strings"
    output_format: ClassVar[str] = "unit features (batch, embedding) of each"
    intended_use: ClassVar[str] = "A small base for adapters, and for trying the zoo on a machine without a GPU."

    def __init__(
        self,
        clip: Annotated[ClipEncoder, Slot("vision_language_encoder")],
        probes: Annotated[dict[str, list[list[str]]] | None, Injected] = None,
    ) -> None:
        """Wire the encoder.

        Args:
            clip: the model to train, all of it.
            probes: for zero-shot evaluation, finding to [sentences that state it, sentences that deny it].
        """
        super().__init__()
        self.clip = clip
        self.probes = probes or {}

    def forward(self, images: torch.Tensor, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit features (batch, embedding) of images (batch, 1 or 3, height, width) in [0, 1] and of texts."""
        return self.clip.encode_image(images), self.clip.encode_text(texts)

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Keep the temperature in CLIP's bound."""
        with torch.no_grad():
            self.clip.model.logit_scale.clamp_(0, _LARGEST_SCALE)

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Symmetric cross-entropy over the similarities of the whole batch, gathered from all processes."""
        from open_clip.loss import ClipLoss

        rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if is_distributed() else (0, 1)
        images, texts = self(batch["image"], batch["text"])
        return {"loss": ClipLoss(gather_with_grad=True, rank=rank, world_size=world)(images, texts, self.clip.scale)}

    def evaluation_step(self, batch: dict[str, Any]) -> Outputs:
        """Features of image and report, and the probability and truth of each probed finding."""
        images, texts = self(batch["image"], batch["text"])
        outputs = {"image_features": images, "text_features": texts}
        for name, sentences in self.probes.items():
            outputs[f"probability of {name}"] = self._probability(images, sentences)
            present = [float(name in findings) for findings in batch["findings"]]
            outputs[f"truth of {name}"] = torch.tensor(present, device=images.device)
        return outputs

    def _probability(self, features: torch.Tensor, sentences: list[list[str]]) -> torch.Tensor:
        """Probability (batch) that a finding is stated rather than denied, by the best sentence of either kind."""
        best = [self.clip.logits(features, self.clip.encode_text(kind)).amax(dim=-1) for kind in sentences]
        return torch.stack(best, dim=-1).softmax(dim=-1)[:, 0]

    def metrics(self) -> dict[str, Metric]:
        """Zero-shot AUROC of each probe and their mean."""

        def auroc(name: str) -> Metric:
            return lambda o: float(binary_auroc(o[f"probability of {name}"], o[f"truth of {name}"].int()))

        single = {f"auroc_{name.replace(' ', '_')}": auroc(name) for name in self.probes}
        return {"auroc": lambda o: sum(metric(o) for metric in single.values()) / max(len(single), 1), **single}

    def predict_images(self, images: Sequence[torch.Tensor]) -> list[Findings]:  # type: ignore[override]
        """Zero-shot probability of each probed finding."""
        features = self.clip.encode_image(self.clip.stack(images))
        columns = {name: self._probability(features, sentences).tolist() for name, sentences in self.probes.items()}
        return [
            Findings(image, {name: column[index] for name, column in columns.items()})
            for index, image in enumerate(on_cpu(images))
        ]

    def example_batch(self) -> dict[str, Any]:
        """Two blank images with short reports."""
        height, width = self.clip.image_size
        texts = ["no pleural effusion", "a pleural effusion"]
        return {"image": torch.zeros(2, 1, height, width), "text": texts, "findings": [[], []]}
