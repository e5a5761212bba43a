"""NEARL (formerly NEARL-CLIP, arXiv 2508.04101): one USEformer beside a frozen CLIP, one OCA for each layer and modality."""

import warnings
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import nn
from torch.nn import functional

from zoo.adapters.few_shot import Classes, Clip, FewShotAdapter
from zoo.adapters.oca import OrthogonalCrossAttention
from zoo.adapters.useformer import USEformer
from zoo.encoders.clip import ClipEncoder
from zoo.errors import ArgumentError, ZooWarning
from zoo.ranges import Fraction, PositiveInt
from zoo.registry import Slot, register

Interaction = Literal["instance", "prototype"]
Direction = Literal["both", "image_to_text", "text_to_image"]
MANY_CLASSES = 32
"""Up to so many classes all interact with each image by default."""


@register("adapter", "nearl")
class NearlAdapter(FewShotAdapter):
    """After each layer k of both towers, ``z_v, z_t = USEformer_k(v, t)``, ``v <- OCA_v,k(v, z_v)``, ``t <- OCA_t,k(t, z_t)``.

    v are image tokens (batch, tokens, vision width), t text tokens (batch, classes * positions, text width).

    ``interaction`` (reconstructed): with "instance", the text tokens of an image interact with that image's tokens, so that
    each image has class embeddings of its own; with "prototype", they interact with a running mean of training images, so that
    class embeddings are computed once and cached. There the USEformer attends to summaries, which makes it cheap: the mean
    token of each class, and image patches averaged two by two. In both, an image's logits do not depend on the rest of its
    batch. With "instance", time and memory grow with images times classes; ``candidates`` bounds them (ours, not the paper's):
    only an image's likeliest classes by the frozen CLIP meet its tokens, the others keep their frozen class embeddings. Towers of unequal depth are adapted at as many points as the shallower one has layers.
    """

    prototype: torch.Tensor
    """Running mean of summarised image tokens at each point (points, tokens, vision width)."""
    seen: torch.Tensor
    """Number of batches in the prototype; the name is part of published state dicts."""

    def __init__(
        self,
        clip: Clip,
        classes: Classes,
        useformer: Annotated[Callable[..., USEformer], Slot("adapter")] = USEformer,
        oca: Annotated[Callable[..., OrthogonalCrossAttention], Slot("adapter")] = OrthogonalCrossAttention,
        interaction: Interaction = "instance",
        direction: Direction = "both",
        candidates: PositiveInt | None = None,
        momentum: Fraction = 0.99,
    ) -> None:
        """Build for a CLIP.

        Args:
            clip: gives widths, depths and the tokenizer.
            classes: the classes and their prompts.
            useformer: builder of the USEformer.
            oca: builder of the adapters.
            interaction: which image tokens the text tokens interact with.
            direction: of the interaction; with "image_to_text" only text tokens are adapted, with "text_to_image" only image
                tokens (ablations).
            candidates: number of classes that interact with each image, of interaction "instance"; if None all, of more than
                :data:`MANY_CLASSES` that many, with a warning.
            momentum: of the running prototype.
        """
        super().__init__(clip, classes)
        count = len(self.input_ids)
        if candidates is None and interaction == "instance" and count > MANY_CLASSES:
            warnings.warn(
                f"each image interacts with the {MANY_CLASSES} likeliest of {count} classes; candidates={count} lets it interact with "
                "all, which costs a text stream for each, and interaction=prototype costs none",
                ZooWarning,
                stacklevel=2,
            )
            candidates = MANY_CLASSES
        self.candidates = min(candidates or count, count)
        self.points = min(clip.vision.depth, clip.text.depth)
        widths = {"vision_width": clip.vision.width, "text_width": clip.text.width}
        self.useformer = useformer(**widths, layers=self.points)
        synergy = self.useformer.to_image.out_features
        adapt_image, adapt_text = direction != "image_to_text", direction != "text_to_image"
        self.image_oca = self._adapters(oca, clip.vision.width, synergy, adapt_image)
        self.text_oca = self._adapters(oca, clip.text.width, synergy, adapt_text)
        self.interaction, self.momentum = interaction, momentum
        if interaction == "prototype":
            blank = torch.zeros(1, clip.vision.prefix + clip.vision.grid[0] * clip.vision.grid[1], clip.vision.width)
            self.register_buffer("prototype", _summary(blank, clip).repeat(self.points, 1, 1))
            self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self._cached_text: tuple[list[torch.Tensor], torch.Tensor] | None = None

    def _adapters(
        self, oca: Callable[..., OrthogonalCrossAttention], width: int, synergy: int, enabled: bool
    ) -> nn.ModuleList | None:
        return nn.ModuleList(oca(width=width, synergy=synergy) for _ in range(self.points)) if enabled else None

    def train(self, mode: bool = True) -> "NearlAdapter":
        """Switch mode; cached class embeddings are dropped, since weights may change."""
        self._cached_text = None
        return super().train(mode)

    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes) of images (batch, 1 or 3, height, width) in [0, 1]."""
        if self.interaction == "instance":
            return self._instance(clip, images)
        text_points, text_features = self._prototype_text(clip)
        image_features = self._image_stream(clip, images, text_points)
        return clip.logits(image_features, text_features)

    def _instance(
        self, clip: ClipEncoder, images: torch.Tensor, attention: list[torch.Tensor | None] | None = None
    ) -> torch.Tensor:
        """Logits with the interaction "instance"; after the first point there are text tokens for each (image, candidate)."""
        candidates = self._candidates(clip, images)
        image = clip.vision.start(clip.normalise(images))
        text, mask = clip.text.start(clip.text.embed(self.input_ids), self.input_ids)
        padding = ~clip.text.is_token(self.input_ids)[candidates].flatten(1)
        for point in range(self.points):
            image = self._image_layers(clip, point, image)
            text = self._text_layers(clip, point, text, mask)
            if point == 0:  # until here the text is the same for every image
                text = text[candidates].flatten(0, 1)
                mask = mask[candidates].flatten(0, 1) if mask is not None and mask.ndim == 4 else mask
            joint = text.reshape(images.shape[0], -1, text.shape[-1])
            queries, weights = self.useformer.attend(point, image, joint, padding)
            if attention is not None:
                attention.append(weights)
            for_image, for_text = self.useformer.to_image(queries), self.useformer.to_text(queries)
            image = _adapted(self.image_oca, point, image, for_image)
            text = _adapted(self.text_oca, point, joint, for_text).view_as(text)
        image_features = functional.normalize(clip.vision.finish(image), dim=-1)
        text_features = functional.normalize(clip.text.finish(text, self.input_ids[candidates].flatten(0, 1)), dim=-1)
        of_classes = self._with_the_rest(clip, candidates, text_features.view(*candidates.shape, -1))
        return clip.logits(image_features[:, None], of_classes)[:, 0]

    def _candidates(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """The classes that interact with each image (batch, candidates), ascending."""
        classes = torch.arange(len(self.input_ids), device=images.device)[None].expand(images.shape[0], -1)
        if self.candidates == len(self.input_ids):
            return classes
        with torch.no_grad():
            similarity = self.encode_images(clip, images) @ self.text_features(clip).mT
        return similarity.topk(self.candidates).indices.sort(dim=1).values

    def _with_the_rest(self, clip: ClipEncoder, candidates: torch.Tensor, text_features: torch.Tensor) -> torch.Tensor:
        """Class embeddings (batch, classes, embedding): those of the candidates, and the frozen ones of the others."""
        if self.candidates == len(self.input_ids):
            return text_features
        frozen = self.text_features(clip).to(text_features.dtype).expand(candidates.shape[0], -1, -1)
        return frozen.scatter(1, candidates[..., None].expand_as(text_features), text_features)

    def _prototype_text(self, clip: ClipEncoder) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The classes' mean tokens (1, classes, width) at each point and unit features (classes, embedding)."""
        if self._cached_text is not None and not torch.is_grad_enabled():
            return self._cached_text
        classes, length = self.input_ids.shape
        text, mask = clip.text.start(clip.text.embed(self.input_ids), self.input_ids)
        share = functional.normalize(clip.text.is_token(self.input_ids).float(), p=1, dim=1)[:, None]
        at_points = []
        for point in range(self.points):
            text = self._text_layers(clip, point, text, mask)
            at_points.append((share @ text).view(1, classes, -1))
            joint = text.view(1, classes * length, -1)
            # A copy: the prototype is updated in place before the backward pass needs its present value.
            prototype = self.prototype[point : point + 1].clone()
            _, for_text = self.useformer(point, prototype, at_points[-1])
            text = _adapted(self.text_oca, point, joint, for_text).view(classes, length, -1)
        result = at_points, functional.normalize(clip.text.finish(text, self.input_ids), dim=-1)
        if not self.training and not torch.is_grad_enabled():
            self._cached_text = result
        return result

    def _image_stream(self, clip: ClipEncoder, images: torch.Tensor, text_points: list[torch.Tensor]) -> torch.Tensor:
        """Unit image features (batch, embedding), given the text summaries; in training this updates the prototype."""
        image = clip.vision.start(clip.normalise(images))
        for point, text in enumerate(text_points):
            image = self._image_layers(clip, point, image)
            summary = _summary(image, clip)
            if self.training:
                self._update_prototype(point, summary.detach().mean(dim=0))
            for_image, _ = self.useformer(point, summary, text.expand(images.shape[0], -1, -1))
            image = _adapted(self.image_oca, point, image, for_image)
        return functional.normalize(clip.vision.finish(image), dim=-1)

    def _update_prototype(self, point: int, mean: torch.Tensor) -> None:
        """Exponential moving average over batches of all processes; the first batch initialises it."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(mean)
            mean = mean / torch.distributed.get_world_size()
        weight = torch.where(self.seen > 0, self.momentum, 0.0)
        self.prototype[point] = self.prototype[point] * weight + mean * (1 - weight)
        self.seen += int(point == self.points - 1)

    @torch.no_grad()
    def logits_and_attention(self, clip: ClipEncoder, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits, and the USEformer's attention to the image (mean over points); None where it attends to no single image."""
        if self.interaction != "instance" or not self.useformer.mix:
            return self(clip, images), None
        maps: list[torch.Tensor | None] = []
        logits = self._instance(clip, images, maps)
        return logits, self._stacked(clip, maps).mean(dim=1)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "NearlAdapter":
        """Move or cast; cached class embeddings are dropped, since they would stay behind."""
        self._cached_text = None
        super()._apply(fn, recurse)
        return self

    def attention_maps(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """The USEformer's attention to image patches: (batch, points, rows, columns), each map summing to at most 1.

        Raises:
            ArgumentError: the interaction is not "instance", or the USEformer does not mix.
        """
        if self.interaction != "instance" or not self.useformer.mix:
            raise ArgumentError("attention maps need the instance interaction and a USEformer that mixes")
        maps: list[torch.Tensor | None] = []
        self.eval()
        self._instance(clip, images, maps)
        return self._stacked(clip, maps)

    def _stacked(self, clip: ClipEncoder, maps: list[torch.Tensor | None]) -> torch.Tensor:
        stacked = torch.stack([layer.mean(dim=1) for layer in maps if layer is not None], dim=1)
        return stacked[..., clip.vision.prefix :].reshape(*stacked.shape[:-1], *clip.vision.grid)

    def _image_layers(self, clip: ClipEncoder, point: int, tokens: torch.Tensor) -> torch.Tensor:
        for layer in _layers_before(point, self.points, clip.vision.depth):
            tokens = clip.vision.layer(layer, tokens)
        return tokens

    def _text_layers(
        self, clip: ClipEncoder, point: int, tokens: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        for layer in _layers_before(point, self.points, clip.text.depth):
            tokens = clip.text.layer(layer, tokens, mask)
        return tokens


def _adapted(adapters: nn.ModuleList | None, point: int, tokens: torch.Tensor, synergy: torch.Tensor) -> torch.Tensor:
    return tokens if adapters is None else adapters[point](tokens, synergy).to(tokens.dtype)


def _summary(tokens: torch.Tensor, clip: ClipEncoder) -> torch.Tensor:
    """Image tokens (batch, tokens, width) with the patches averaged two by two."""
    prefix, patches = tokens[:, : clip.vision.prefix], tokens[:, clip.vision.prefix :]
    feature_maps = patches.mT.reshape(len(tokens), -1, *clip.vision.grid)
    pooled = functional.avg_pool2d(feature_maps, 2, ceil_mode=True)
    return torch.cat([prefix, pooled.flatten(2).mT], dim=1)


def _layers_before(point: int, points: int, depth: int) -> range:
    """The layers to run before an adaptation point: one, or an even share in the deeper tower."""
    return range(point * depth // points, (point + 1) * depth // points)
