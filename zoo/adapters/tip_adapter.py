"""Tip-Adapter and Tip-Adapter-F (Zhang et al., arXiv 2207.09519): a cache of the few shots beside zero-shot CLIP."""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from zoo.adapters.few_shot import Classes, Clip, FewShotAdapter
from zoo.encoders.clip import ClipEncoder
from zoo.errors import ArgumentError, ZooWarning
from zoo.ranges import NonNegativeFloat, PositiveFloat, PositiveInt
from zoo.registry import register

_CLIP_SCALE = 100.0
"""The factor on cosine similarities of OpenAI's CLIP, for which the paper's alphas are."""


class _Cache(FewShotAdapter):
    """``logits = scale f T^t + alpha exp(-beta (1 - f K^t)) V`` with keys K and one-hot labels V of the shots.

    alpha and beta are searched on the validation split over the official grid, as many equal steps from 0.1 to (but without)
    a greatest value; alpha in proportion to the CLIP's scale, where that is not 100 (BiomedCoOp's version leaves the grid as it is
    for BiomedCLIP's 85). Without validation images they stay as given. Keys are of the images as training sees them: with
    ``augment`` one random crop of each, as in BiomedCoOp's runs; the original code averages ten.
    """

    class_bound = True
    observes = True
    keys: torch.Tensor
    labels: torch.Tensor
    alpha: torch.Tensor
    beta: torch.Tensor

    def __init__(
        self,
        clip: Clip,
        classes: Classes,
        per_class: PositiveInt = 16,
        alpha: NonNegativeFloat = 1.0,
        beta: NonNegativeFloat = 1.0,
        search: bool = True,
        search_scale: PositiveFloat = 50.0,
        search_steps: PositiveInt = 200,
    ) -> None:
        """Build an empty cache.

        Args:
            clip: gives the feature width.
            classes: the classes and their prompts.
            per_class: places in the cache for each class; set it to the number of shots.
            alpha: weight of the cache, before it is searched.
            beta: sharpness of the affinity, before it is searched.
            search: whether to search alpha and beta on the validation split.
            search_scale: greatest alpha and beta of the grid.
            search_steps: values of each.
        """
        super().__init__(clip, classes)
        places = per_class * len(classes.names)
        self._hold_keys(torch.zeros(places, clip.embedding))
        self.register_buffer("labels", torch.zeros(places, len(classes.names)))
        self.register_buffer("alpha", torch.tensor(alpha))
        self.register_buffer("beta", torch.tensor(beta))
        self.per_class, self.search = per_class, search
        self.search_scale, self.search_steps = search_scale, search_steps

    def _hold_keys(self, keys: torch.Tensor) -> None:
        self.register_buffer("keys", keys)

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes)."""
        features = self.encode_images(clip, images).float()
        cached = self.alpha * self._cached(features, self.beta)
        return clip.logits(features, self.text_features(clip).float()) + cached

    def _cached(self, features: torch.Tensor, beta: torch.Tensor | float) -> torch.Tensor:
        """The cache's logits (batch, classes) of unit features, before alpha."""
        return torch.exp(-beta * (1 - features @ self.keys.mT)) @ self.labels

    @torch.no_grad()
    def observe(self, clip: ClipEncoder, train: Iterable[dict[str, Any]], val: Iterable[dict[str, Any]]) -> None:
        """Fill the cache from the training images.

        Raises:
            ArgumentError: a class has more images than the cache has places.
        """
        features, labels = self.encode_batches(clip, train)
        for label, name in enumerate(self.classes.names):
            of_class = features[labels == label]
            if len(of_class) > self.per_class:
                raise ArgumentError(f"{len(of_class)} shots of '{name}', and per_class is {self.per_class}")
            start = label * self.per_class
            self.keys[start : start + len(of_class)] = of_class
            self.labels[start : start + len(of_class), label] = 1

    def _search(self, clip: ClipEncoder, val: Iterable[dict[str, Any]]) -> None:
        """Search alpha and beta, or say that there is nothing to search them on."""
        if not self.search:
            return
        features, labels = self.encode_batches(clip, val)
        if len(labels):
            self.search_blend(clip, features, labels)
        else:
            message = f"no validation images: alpha stays {float(self.alpha):g}, beta {float(self.beta):g}"
            warnings.warn(f"{message}; search: false says that they shall", ZooWarning, stacklevel=2)

    @torch.no_grad()
    def search_blend(self, clip: ClipEncoder, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Set alpha and beta to the first pair of the grid, beta outside, with the best accuracy on validation features."""
        grid = torch.arange(self.search_steps, device=features.device) / self.search_steps
        betas = 0.1 + (self.search_scale - 0.1) * grid
        alphas = betas * clip.scale.float() / _CLIP_SCALE
        zero_shot = clip.logits(features, self.text_features(clip).float())
        best = -1.0
        for beta in betas:
            logits = zero_shot + alphas[:, None, None] * self._cached(features, beta)
            accuracy = (logits.argmax(dim=-1) == labels).float().mean(dim=-1)
            if float(accuracy.max()) > best:
                best = float(accuracy.max())
                self.alpha.copy_(alphas[int(accuracy.argmax())])
                self.beta.copy_(beta)


@register("adapter", "tip_adapter")
class TipAdapter(_Cache):
    """A cache of the shots, with alpha and beta searched on the validation split; nothing is trained.

    ``logits = scale f T^t + alpha exp(-beta (1 - f K^t)) V``: unit feature f, class embeddings T, keys K, one-hot labels V.
    """

    def observe(self, clip: ClipEncoder, train: Iterable[dict[str, Any]], val: Iterable[dict[str, Any]]) -> None:
        """Fill the cache, then search.

        Raises:
            ArgumentError: a class has more images than the cache has places.
        """
        super().observe(clip, train, val)
        self._search(clip, val)


@register("adapter", "tip_adapter_f")
class TipAdapterF(_Cache):
    """Tip-Adapter whose keys are trained from the shots' features on, not normalised again.

    As in the official code, alpha and beta keep their first values in training, the keys of the best epoch are kept, and the
    search comes after. The original code measures epochs on the test split; here the validation split decides, as in BiomedCoOp's
    version. That one first searches an alpha of 0 to 9 by ten trainings, all of which change the same keys; this is not built.
    """

    best_keys: torch.Tensor
    best_accuracy: torch.Tensor

    def _hold_keys(self, keys: torch.Tensor) -> None:
        self.keys = nn.Parameter(keys)
        self.register_buffer("best_keys", keys.clone())
        self.register_buffer("best_accuracy", torch.tensor(-1.0))

    @torch.no_grad()
    def end_epoch(self, clip: ClipEncoder, val: Iterable[dict[str, Any]]) -> None:
        """Keep the keys if they are the best so far."""
        features, labels = self.encode_batches(clip, val)
        if not len(labels):  # every epoch replaces the one before
            return
        logits = clip.logits(features, self.text_features(clip).float()) + self.alpha * self._cached(
            features, self.beta
        )
        accuracy = (logits.argmax(dim=-1) == labels).float().mean()
        if accuracy > self.best_accuracy:
            self.best_accuracy.copy_(accuracy)
            self.best_keys.copy_(self.keys)

    @torch.no_grad()
    def finish(self, clip: ClipEncoder, val: Iterable[dict[str, Any]]) -> None:
        """Take the best keys, and search alpha and beta for them."""
        if self.best_accuracy >= 0:
            self.keys.copy_(self.best_keys)
        self._search(clip, val)
