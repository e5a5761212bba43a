"""Tip-Adapter and Tip-Adapter-F (Zhang et al., arXiv 2207.09519): a cache of the few shots beside zero-shot CLIP."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from zoo.adapters.few_shot import ClassNames, Clip, FewShotAdapter, Template
from zoo.encoders.clip import ClipEncoder
from zoo.errors import ArgumentError
from zoo.registry import register

_ALPHAS = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0)
_BETAS = (1.0, 2.5, 5.5, 8.0, 12.0, 20.0)


@register("adapter", "tip_adapter")
class TipAdapter(FewShotAdapter):
    """``logits = scale f T^t + alpha exp(-beta (1 - f K^t)) V`` with keys K and one-hot labels V of the shots.

    ``alpha`` and ``beta`` are searched on the validation split, as the paper does. No training.
    """

    trains_keys = False
    observes = True
    keys: torch.Tensor
    labels: torch.Tensor
    alpha: torch.Tensor
    beta: torch.Tensor

    def __init__(
        self,
        clip: Clip,
        class_names: ClassNames,
        template: Template,
        per_class: int = 16,
        alpha: float = 1.0,
        beta: float = 5.5,
        search: bool = True,
    ) -> None:
        """Build an empty cache.

        Args:
            clip: gives the feature width.
            class_names: the classes.
            template: the prompt.
            per_class: capacity of the cache for each class; set it to the number of shots.
            alpha: weight of the cache.
            beta: sharpness of the affinity.
            search: whether to search alpha and beta on the validation split.
        """
        super().__init__(clip, class_names, template)
        capacity = per_class * len(class_names)
        keys = torch.zeros(capacity, clip.embedding)
        if self.trains_keys:
            self.keys = nn.Parameter(keys)
        else:
            self.register_buffer("keys", keys)
        self.register_buffer("labels", torch.zeros(capacity, len(class_names)))
        self.register_buffer("alpha", torch.tensor(alpha))
        self.register_buffer("beta", torch.tensor(beta))
        self.per_class, self.search = per_class, search

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes)."""
        with torch.no_grad():
            features, classes = clip.encode_image(images), clip.encode_ids(self.input_ids)
        return self._combine(clip, features, classes, self.alpha, self.beta)

    def _combine(
        self, clip: ClipEncoder, features: torch.Tensor, classes: torch.Tensor, alpha: Any, beta: Any
    ) -> torch.Tensor:
        affinity = features @ functional.normalize(self.keys, dim=-1).mT
        cached: torch.Tensor = alpha * torch.exp(-beta * (1 - affinity)) @ self.labels
        return clip.logits(features, classes) + cached

    @torch.no_grad()
    def observe(self, clip: ClipEncoder, train: Iterable[dict[str, Any]], val: Iterable[dict[str, Any]]) -> None:
        """Fill the cache from the training images, then search alpha and beta on the validation ones.

        Raises:
            ArgumentError: a class has more images than the cache's capacity.
        """
        features, labels = self._encode(clip, train)
        classes = self.labels.shape[1]
        for label in range(classes):
            shots = features[labels == label]
            if len(shots) > self.per_class:
                raise ArgumentError(f"{len(shots)} shots of '{self.prompts[label]}', and per_class is {self.per_class}")
            start = label * self.per_class
            self.keys[start : start + len(shots)] = shots
            self.labels[start : start + len(shots), label] = 1
        if self.search:
            self._search(clip, *self._encode(clip, val))

    def _encode(self, clip: ClipEncoder, batches: Iterable[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = [(clip.encode_image(batch["image"]), batch["label"]) for batch in batches]
        features, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        return features.float(), labels

    def _search(self, clip: ClipEncoder, features: torch.Tensor, labels: torch.Tensor) -> None:
        classes = clip.encode_ids(self.input_ids)

        def accuracy(alpha: float, beta: float) -> float:
            return float((self._combine(clip, features, classes, alpha, beta).argmax(dim=-1) == labels).float().mean())

        alpha, beta = max(((a, b) for a in self._alphas(clip) for b in _BETAS), key=lambda pair: accuracy(*pair))
        self.alpha.fill_(alpha)
        self.beta.fill_(beta)

    def _alphas(self, clip: ClipEncoder) -> list[float]:
        # The paper's alphas suit CLIP's scale of 100; a CLIP with another temperature needs them in proportion.
        return [float(alpha * clip.scale / 100 * 10**power) for alpha in _ALPHAS for power in (0, 1)]


@register("adapter", "tip_adapter_f")
class TipAdapterF(TipAdapter):
    """Tip-Adapter whose keys are trained, starting from the shots' features."""

    trains_keys = True
