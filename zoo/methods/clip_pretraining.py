"""Contrastive pretraining of a CLIP on images and texts (Radford et al., arXiv 2103.00020; UniCL, arXiv 2204.03610)."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch.nn import functional

from zoo.encoders.clip import ClipEncoder
from zoo.errors import ArgumentError
from zoo.finite import check_finite
from zoo.methods.base import Metric, Outputs, ZooModule
from zoo.methods.distributed import gather_objects, is_distributed
from zoo.methods.predictions import Findings, on_cpu
from zoo.metrics.classification import binary_auroc, nan_mean
from zoo.pretrained import fingerprint_of
from zoo.registry import Injected, Slot, register

_LARGEST_SCALE = 4.6052  # log 100, CLIP's bound on the temperature


@register("method", "clip_pretraining")
class ClipPretraining(ZooModule):
    """Trains the towers, or what of them is not frozen, so that an image is nearest to the texts that are true of it."""

    base_prefixes: ClassVar[dict[str, str]] = {"unet.encoder.": "clip.model.visual.trunk.patch_embed.backbone."}
    """A convolutional stem can start from the encoder of a trained U-Net."""
    task: ClassVar[str] = "zero-shot-image-classification"
    input_format: ClassVar[str] = "image (batch, 1 or 3, height, width) float32 in [0, 1]; texts as strings"
    output_format: ClassVar[str] = "unit features (batch, embedding) of each"
    intended_use: ClassVar[str] = "A small base for adapters, and for trying the zoo on a machine without a GPU."

    def __init__(
        self,
        clip: Annotated[ClipEncoder, Slot("vision_language_encoder")],
        positives: Literal["pairs", "claims"] = "pairs",
        probes: Annotated[dict[str, list[list[str]]] | None, Injected] = None,
    ) -> None:
        """Wire the encoder.

        Args:
            clip: the model to train, all of it that is not frozen.
            positives: the texts that belong to an image: "pairs", its own alone; "claims", all those in the batch whose
                ``claims`` are among its ``facts``, so that a text that is true of several images is nobody's negative.
            probes: for zero-shot evaluation, finding to [sentences that state it, sentences that deny it].
        """
        super().__init__()
        self.clip = clip
        self.positives = positives
        self.probes = probes or {}

    def forward(self, images: torch.Tensor, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit features (batch, embedding) of images (batch, 1 or 3, height, width) in [0, 1] and of texts."""
        return self.clip.encode_image(images), self.clip.encode_text(texts)

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Keep the temperature in CLIP's bound."""
        with torch.no_grad():
            self.clip.model.logit_scale.clamp_(0, _LARGEST_SCALE)

    def base_fingerprint(self) -> str | None:
        """Hash of what is frozen in the CLIP; None where all of it is trained."""
        if self._fingerprint is None:
            named = [(name, value) for name, value in self.named_parameters() if not value.requires_grad]
            self._fingerprint = fingerprint_of(named) if named else None
        return self._fingerprint

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Cross-entropy of each image over all texts and of each text over all images, of all processes.

        A row's target is spread evenly over its positives (UniCL); with one positive a row this is CLIP's loss.
        """
        images, texts = self(batch["image"], batch["text"])
        if is_distributed():
            from open_clip.loss import gather_features

            rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
            images, texts = gather_features(images, texts, gather_with_grad=True, rank=rank, world_size=world)
        logits = self.clip.logits(images, texts)
        targets = self._targets(batch, len(images)).to(logits)
        by_image = functional.cross_entropy(logits, targets / targets.sum(dim=1, keepdim=True))
        by_text = functional.cross_entropy(logits.mT, targets.mT / targets.sum(dim=0)[:, None])
        return {"loss": (by_image + by_text) / 2}

    def _targets(self, batch: dict[str, Any], size: int) -> torch.Tensor:
        """1 where the text of a column belongs to the image of a row, (size, size); its paired text always does."""
        pairs = torch.eye(size)
        if self.positives == "pairs":
            return pairs
        if "claims" not in batch:
            raise ArgumentError("positives: claims needs data with claims and facts, as chest_drr with captions: true")
        parts = gather_objects((list(batch["claims"]), list(batch["facts"])))
        claims = [claim for part, _ in parts for claim in part]
        facts = [fact for _, part in parts for fact in part]
        return torch.tensor([[float(claim <= fact) for claim in claims] for fact in facts]).maximum(pairs)

    def evaluation_step(self, batch: dict[str, Any]) -> Outputs:
        """Features of image and report, and the probability and truth of each probed finding."""
        images, texts = self(batch["image"], batch["text"])
        check_finite(images, "the image features")
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
        """Zero-shot AUROC of each probe, and the mean of those that can be measured."""

        def auroc(name: str) -> Metric:
            return lambda o: binary_auroc(o[f"probability of {name}"], o[f"truth of {name}"])

        single = {f"auroc_{name.replace(' ', '_')}": auroc(name) for name in self.probes}
        return {"auroc": lambda o: nan_mean([metric(o) for metric in single.values()]), **single}

    def predict_images(self, images: Sequence[torch.Tensor]) -> list[Findings]:  # type: ignore[override]
        """Zero-shot probability of each probed finding."""
        features = check_finite(self.clip.encode_image(self.clip.stack(images)), "the image features")
        columns = {name: self._probability(features, sentences).tolist() for name, sentences in self.probes.items()}
        return [
            Findings(image, {name: column[index] for name, column in columns.items()})
            for index, image in enumerate(on_cpu(images))
        ]

    def example_batch(self) -> dict[str, Any]:
        """Two blank images with short reports."""
        height, width = self.clip.image_size
        texts = ["no pleural effusion", "a pleural effusion"]
        facts = [frozenset({"no effusion"}), frozenset({"effusion"})]
        images = torch.zeros(2, 1, height, width)
        return {"image": images, "text": texts, "findings": [[], []], "claims": facts, "facts": facts}
