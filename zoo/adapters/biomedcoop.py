"""BiomedCoOp (Koleilat et al., arXiv 2411.15232): CoOp guided by an ensemble of descriptions of each class."""

import torch
from torch.nn import functional

from zoo.adapters.coop import CoOp
from zoo.adapters.few_shot import Classes, Clip
from zoo.encoders.clip import ClipEncoder
from zoo.errors import ArgumentError
from zoo.pretrained import should_load_weights
from zoo.ranges import NonNegativeFloat, PositiveFloat, PositiveInt
from zoo.registry import register


@register("adapter", "biomedcoop")
class BiomedCoOp(CoOp):
    """Loss: cross-entropy + ``sccm`` MSE(w, mean of the texts) + ``kdsp`` KL(zero-shot by selected texts || prediction).

    The i-th text of every class is scored together, by the mean over the batch of the greatest logit; texts whose robust
    z-score lies more than ``tau`` standard deviations off are left out of the zero-shot teacher (selective prompting). The
    descriptions in the paper are from a language model, 50 per class; here they are the ``class_texts`` of the data set, which
    biomedcoop/official reads from the authors' list.
    """

    def __init__(
        self,
        clip: Clip,
        classes: Classes,
        context: PositiveInt = 4,
        context_init: str | None = "a photo of a",
        sccm: NonNegativeFloat = 0.5,
        kdsp: NonNegativeFloat = 0.25,
        tau: PositiveFloat = 1.5,
    ) -> None:
        """Build.

        Args:
            clip: gives the width and the tokenizer.
            classes: with at least three texts for each; where they differ in number, the first ones of each are used.
            context: number of context vectors, where ``context_init`` is None.
            context_init: words whose embeddings the context starts from; None samples from N(0, 0.02^2).
            sccm: weight of semantic consistency by contextual mapping.
            kdsp: weight of knowledge distillation with selective prompting.
            tau: greatest z-score of a text that the teacher uses.

        Raises:
            ArgumentError: a class has fewer than three texts.
        """
        super().__init__(clip, classes, context, context_init)
        self.texts_per_class = min(map(len, classes.descriptions()))
        if self.texts_per_class < 3 and should_load_weights():  # a plan may lack the file of texts
            raise ArgumentError(
                f"BiomedCoOp needs at least 3 texts of each class, and one has {self.texts_per_class}; give class_texts"
            )
        self.sccm, self.kdsp, self.tau = sccm, kdsp, tau
        self._ensemble: torch.Tensor | None = None

    def loss(self, clip: ClipEncoder, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See the class."""
        image_features = self.encode_images(clip, images)
        with torch.no_grad():
            ensemble = self._ensemble_features(clip)
            selected = self._selected(clip, image_features, ensemble).to(ensemble.dtype)
            means = functional.normalize((ensemble * selected[:, None]).sum(dim=1), dim=-1)
            teacher = clip.logits(image_features, means).float().log_softmax(dim=-1)
            centres = functional.normalize(ensemble.mean(dim=1), dim=-1)
        class_features = self.prompted_features(clip)
        logits = clip.logits(image_features, class_features).float()
        distillation = functional.kl_div(logits.log_softmax(dim=-1), teacher, reduction="sum", log_target=True)
        mapping = functional.mse_loss(class_features.float(), centres.float())
        return self.cross_entropy(logits, labels) + self.sccm * mapping + self.kdsp * distillation / logits.numel()

    def _ensemble_features(self, clip: ClipEncoder) -> torch.Tensor:
        """Unit embeddings (classes, texts, embedding), computed once."""
        if self._ensemble is None or self._ensemble.device != clip.mean.device:
            texts = [clip.encode_text(texts[: self.texts_per_class]) for texts in self.classes.descriptions()]
            self._ensemble = torch.stack(texts)
        return self._ensemble

    def _selected(self, clip: ClipEncoder, image_features: torch.Tensor, ensemble: torch.Tensor) -> torch.Tensor:
        """Which texts (texts per class) the teacher uses."""
        logits = torch.einsum("bd,ctd->btc", image_features, ensemble) * clip.scale
        scores = logits.float().amax(dim=-1).mean(dim=0)
        deviation = scores - scores.median()
        z = deviation / deviation.abs().median().clamp_min(1e-12)
        return ((z - z.mean()) / z.std().clamp_min(1e-12)).abs() <= self.tau
