"""LP++ (Huang et al., arXiv 2404.02285): a linear probe blended with the text, its step sizes computed from the data."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import functional

from zoo.adapters.few_shot import Classes, Clip, FewShotAdapter
from zoo.encoders.clip import ClipEncoder
from zoo.ranges import PositiveInt
from zoo.registry import register

_ALPHA_FACTOR = 250.0
"""The paper's factor of the initial alpha on the mean similarity of the shots to the text of their class."""
_ALPHA_EVERY = 10


@register("adapter", "lp_plus_plus")
class LPPlusPlus(FewShotAdapter):
    """``logits_k = f (w_k + alpha_k t_k) + b_k`` on unit features f and class embeddings t; w, b and alpha are fitted.

    Fitted before training, on the features of the shots, as in the official code: full-batch gradient descent with momentum
    0.9 on w and b, whose step ``4 n / lambda_max(F^T F)`` follows from the n features F; in every tenth iteration a step on
    alpha of ``n / (4 max_k sum_i (f_i t_k)^2)`` along its gradient summed over all iterations so far, which is never reset
    there; w starts at the sum of its class's features. The iteration with the best validation accuracy is kept. No step size
    is searched, and the recipe's optimizer has nothing to train. Here b starts at zero, there at nn.Linear's random values;
    BiomedCoOp's version sums features rounded to float16.
    """

    class_bound = True
    observes = True
    weight: torch.Tensor
    bias: torch.Tensor
    alpha: torch.Tensor

    def __init__(self, clip: Clip, classes: Classes, iterations: PositiveInt = 300) -> None:
        """Build; the weights are fitted when the shots are seen.

        Args:
            clip: the frozen CLIP.
            classes: that it tells apart.
            iterations: of gradient descent.
        """
        super().__init__(clip, classes)
        count = len(classes.names)
        self.register_buffer("weight", torch.zeros(count, clip.embedding))
        self.register_buffer("bias", torch.zeros(count))
        self.register_buffer("alpha", torch.ones(count))
        self.iterations = iterations

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes)."""
        return self._logits(self.encode_images(clip, images).float(), self.text_features(clip).float())

    def _logits(self, features: torch.Tensor, class_features: torch.Tensor) -> torch.Tensor:
        return functional.linear(features, self.weight + self.alpha[:, None] * class_features, self.bias)

    @torch.no_grad()
    def observe(self, clip: ClipEncoder, train: Iterable[dict[str, Any]], val: Iterable[dict[str, Any]]) -> None:
        """Fit on the training images; the validation images choose the iteration, the last one without any."""
        features, labels = self.encode_batches(clip, train)
        val_features, val_labels = self.encode_batches(clip, val)
        class_features = self.text_features(clip).float()
        best = -1.0
        for _ in self._descend(features, labels, class_features):
            predictions = self._logits(val_features, class_features).argmax(dim=-1)
            accuracy = float((predictions == val_labels).float().mean()) if len(val_labels) else 0.0
            if accuracy >= best:
                best, kept = accuracy, [tensor.clone() for tensor in (self.weight, self.bias, self.alpha)]
        for buffer, value in zip((self.weight, self.bias, self.alpha), kept, strict=True):
            buffer.copy_(value)

    def _descend(self, features: torch.Tensor, labels: torch.Tensor, class_features: torch.Tensor) -> Iterable[None]:
        """Run the iterations, in place; pauses after each."""
        count, onehot = len(features), functional.one_hot(labels, len(class_features)).float()
        similarity = features @ class_features.mT
        step = 4 * count / torch.linalg.eigvalsh(features.mT @ features)[-1]
        alpha_step = count / (4 * similarity.square().sum(dim=0).max())
        self.weight.copy_(onehot.mT @ features)
        self.bias.zero_()
        of_class = (onehot * similarity).sum(dim=0) / onehot.sum(dim=0).clamp_min(1)
        self.alpha.fill_(float(_ALPHA_FACTOR * of_class.mean()))
        momentum_weight, momentum_bias = torch.zeros_like(self.weight), torch.zeros_like(self.bias)
        alpha_gradient = torch.zeros_like(self.alpha)
        for iteration in range(1, self.iterations + 1):
            error = (self._logits(features, class_features).softmax(dim=-1) - onehot) / count
            momentum_weight = 0.9 * momentum_weight + error.mT @ features
            momentum_bias = 0.9 * momentum_bias + error.sum(dim=0)
            alpha_gradient += (error * similarity).sum(dim=0)
            self.weight -= step * momentum_weight
            self.bias -= step * momentum_bias
            if iteration % _ALPHA_EVERY == 0:
                self.alpha -= alpha_step * alpha_gradient
            yield
