"""ProGrad (Zhu et al., arXiv 2205.14865): CoOp whose gradient never works against zero-shot CLIP."""

import torch
from torch.nn import functional

from zoo.adapters.coop import CoOp
from zoo.adapters.few_shot import Classes, Clip
from zoo.encoders.clip import ClipEncoder
from zoo.ranges import NonNegativeFloat, PositiveFloat, PositiveInt
from zoo.registry import register


@register("adapter", "prograd")
class ProGrad(CoOp):
    """Where the gradient g of the cross-entropy points against the gradient k of the distillation loss, k's part is removed.

    ``g <- g - strength <g, k/|k|> k/|k|`` if ``<g, k> < 0``. The distillation loss is the cross-entropy to zero-shot CLIP's
    probabilities at temperature T, times T^2.

    BiomedCoOp's version of the code, in float32, takes the prompted model itself in place of zero-shot CLIP; k is zero then but
    for rounding, so that its rows are CoOp's with ProGrad's settings. Here the teacher is zero-shot CLIP, as in the paper, in prograd/official too.
    """

    def __init__(
        self,
        clip: Clip,
        classes: Classes,
        context: PositiveInt = 4,
        context_init: str | None = "a photo of a",
        temperature: PositiveFloat = 1.0,
        strength: NonNegativeFloat = 1.0,
    ) -> None:
        """Build.

        Args:
            clip: gives the width and the tokenizer.
            classes: whose prompts the zero-shot teacher has.
            context: number of context vectors, where ``context_init`` is None.
            context_init: words whose embeddings the context starts from; None samples from N(0, 0.02^2).
            temperature: T of the distillation loss.
            strength: share of the conflicting part that is removed (lambda of the paper).
        """
        super().__init__(clip, classes, context, context_init)
        self.temperature, self.strength = temperature, strength

    def loss(self, clip: ClipEncoder, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The cross-entropy, with the projected gradient in place of its own when it is differentiated."""
        image_features = self.encode_images(clip, images)
        with torch.no_grad():
            teacher = clip.logits(image_features, self.text_features(clip)).float()
        logits = clip.logits(image_features, self.prompted_features(clip)).float()
        cross_entropy = self.cross_entropy(logits, labels)
        if not torch.is_grad_enabled():
            return cross_entropy
        distillation = self.temperature**2 * functional.cross_entropy(
            logits / self.temperature, (teacher / self.temperature).softmax(dim=-1)
        )
        (against,) = torch.autograd.grad(distillation, self.context, retain_graph=True)
        (gradient,) = torch.autograd.grad(cross_entropy, self.context)
        return _with_gradient(cross_entropy, self.context, self._projected(gradient, against))

    def _projected(self, gradient: torch.Tensor, distillation_gradient: torch.Tensor) -> torch.Tensor:
        direction = distillation_gradient / torch.linalg.vector_norm(distillation_gradient).clamp_min(1e-12)
        overlap = (gradient * direction).sum()
        return gradient - self.strength * overlap.clamp_max(0) * direction


def _with_gradient(loss: torch.Tensor, parameter: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """A scalar of the value of ``loss`` whose gradient by ``parameter`` is ``gradient``."""
    linear = (parameter * gradient).sum()
    return loss.detach() + linear - linear.detach()
