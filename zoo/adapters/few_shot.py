"""The contract of an adapter that makes a classifier of a frozen CLIP."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self

import torch
from torch import nn
from torch.nn import functional

from zoo.adapters.image_features import ImageFeatures
from zoo.encoders.clip import ClipEncoder
from zoo.errors import ArgumentError
from zoo.pretrained import should_load_weights
from zoo.registry import Injected


@dataclass(frozen=True)
class ClassPrompts:
    """The classes in words.

    ``template`` is the prompt of a class, with {} for its name; ``texts`` are descriptions of a class, by its name, which
    stand for the class together in place of the prompt if ``ensemble``.

    Raises:
        ArgumentError: no classes, or a template without {}.
    """

    names: Sequence[str]
    template: str = "{}"
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ensemble: bool = False

    def __post_init__(self) -> None:
        """Check."""
        if not self.names or "{}" not in self.template:
            raise ArgumentError(
                f"an adapter needs class names and a template with {{}}; got {len(self.names)} names and '{self.template}'"
            )

    def prompts(self, template: str | None = None) -> list[str]:
        """One prompt for each class, from another template if given."""
        return [(template or self.template).replace("{}", name) for name in self.names]

    def descriptions(self) -> list[list[str]]:
        """The texts of each class; its prompt where it has none."""
        return [list(self.texts.get(name) or [prompt]) for name, prompt in zip(self.names, self.prompts(), strict=True)]


Clip = Annotated[ClipEncoder, Injected]
Classes = Annotated[ClassPrompts, Injected]


class FewShotAdapter(nn.Module, ABC):
    """Classifies images with a frozen CLIP that is passed in, not owned.

    ``classes`` are the classes in words; ``input_ids`` (classes, positions) the tokens of their prompts.
    """

    input_ids: torch.Tensor
    class_weights: torch.Tensor | None
    """How much a class (classes) counts in the loss, set before training; all alike if None."""
    observes: ClassVar[bool] = False
    """Whether :meth:`observe` needs the labelled images."""
    class_bound: ClassVar[bool] = False
    """Whether what is learned belongs to the classes of training, so that others cannot be predicted."""
    reads_prompts: ClassVar[bool] = True
    """Whether classes are told apart by their prompts."""

    def __init__(self, clip: Clip, classes: Classes, template: str | None = None) -> None:
        """Tokenize the prompts.

        Args:
            clip: the frozen CLIP.
            classes: in words.
            template: prompt for a class, with {} for its name; the classes' own if None.

        Raises:
            ArgumentError: two classes have the same tokens, as where a prompt is longer than the text tower's context.
        """
        super().__init__()
        self.classes = classes
        # A plan without weights has no vocabulary, so that all texts of a length are the same there.
        if self.reads_prompts and should_load_weights() and (same := clip.same_tokens(classes.prompts(template))):
            pairs = ", ".join(f"'{classes.names[first]}' and '{classes.names[second]}'" for first, second in same[:5])
            raise ArgumentError(
                f"the text tower reads the same of {pairs}: their prompts differ beyond its context, or in nothing it knows; "
                "give shorter names, or a shorter template or context"
            )
        self.register_buffer("input_ids", clip.tokenize(classes.prompts(template)), persistent=False)
        self.register_buffer("class_weights", None, persistent=False)
        self._text_features: dict[bool, torch.Tensor] = {}
        self._image_features = ImageFeatures()

    @abstractmethod
    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes) of images (batch, 1 or 3, height, width) in [0, 1]."""

    def loss(self, clip: ClipEncoder, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Training loss of images (batch, 1 or 3, height, width) and labels (batch); cross-entropy by default."""
        return self.cross_entropy(self(clip, images), labels)

    def cross_entropy(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in float32 of logits (batch, classes) and labels (batch), weighted by class where there are weights."""
        return functional.cross_entropy(logits.float(), labels, weight=self.class_weights)

    def logits_and_attention(self, clip: ClipEncoder, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits as :meth:`forward`, and an attention map (batch, rows, columns); None for adapters without attention."""
        return self(clip, images), None

    def observe(self, clip: ClipEncoder, train: Iterable[dict[str, Any]], val: Iterable[dict[str, Any]]) -> None:
        """Process the labelled images once before training; nothing by default."""

    def end_epoch(self, clip: ClipEncoder, val: Iterable[dict[str, Any]]) -> None:
        """Process the validation images after each epoch, if the adapter observes; nothing by default."""

    def finish(self, clip: ClipEncoder, val: Iterable[dict[str, Any]]) -> None:
        """Process the validation images once after training, if the adapter observes; nothing by default."""

    def clip_parameters(self, clip: ClipEncoder) -> list[nn.Parameter]:
        """Parameters that the adapter added inside the CLIP and that train with it; none by default."""
        return []

    def encode_images(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Unit features (batch, embedding) of images by the frozen image tower; for adapters that leave it as it is."""
        return self._image_features.encode(clip, images)

    def encode_batches(self, clip: ClipEncoder, batches: Iterable[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit image features (images, embedding) float32 and labels (images) of batches."""
        pairs = [(self.encode_images(clip, batch["image"]), batch["label"]) for batch in batches]
        if not pairs:  # of a split without images
            return torch.zeros(0, clip.embedding), torch.zeros(0, dtype=torch.long)
        features, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        return features.detach().float(), labels

    def text_features(self, clip: ClipEncoder, *, normalize: bool = True) -> torch.Tensor:
        """Embeddings of the classes by the frozen CLIP (classes, embedding), computed once.

        In an ensemble a class has the mean of its texts: of unit embeddings, and itself of unit length, if ``normalize``.
        """
        if normalize not in self._text_features:
            ensemble = self.classes.ensemble
            texts = self.classes.descriptions() if ensemble else [[prompt] for prompt in self.classes.prompts()]
            with torch.no_grad():
                means = torch.stack([clip.encode_text(one, normalize=normalize).mean(dim=0) for one in texts])
            self._text_features[normalize] = functional.normalize(means, dim=-1) if normalize else means
        return self._text_features[normalize]

    def train(self, mode: bool = True) -> Self:
        """Switch mode; cached embeddings are dropped, since weights may have changed."""
        self._text_features.clear()
        return super().train(mode)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """Move; cached embeddings stay behind."""
        self._text_features.clear()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
