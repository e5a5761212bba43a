"""The contract of an adapter that makes a classifier of a frozen CLIP."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import torch
from torch import nn

from zoo.encoders.clip import ClipEncoder
from zoo.errors import ArgumentError
from zoo.registry import Injected

Clip = Annotated[ClipEncoder, Injected]
ClassNames = Annotated[list[str], Injected]
Template = Annotated[str, Injected]


class FewShotAdapter(nn.Module, ABC):
    """Classifies images with a frozen CLIP that is passed in, not owned.

    ``prompts`` are the class names in the template; ``input_ids`` (classes, positions) their tokens.
    """

    input_ids: torch.Tensor
    observes: ClassVar[bool] = False
    """Whether :meth:`observe` needs the labelled images."""

    def __init__(self, clip: Clip, class_names: ClassNames, template: Template) -> None:
        """Tokenize the classes.

        Raises:
            ArgumentError: no classes, or a template without {}.
        """
        super().__init__()
        if not class_names or "{}" not in template:
            raise ArgumentError(
                f"an adapter needs class names and a template with {{}}; got {len(class_names)} names and '{template}'"
            )
        self.prompts = [template.replace("{}", name) for name in class_names]
        self.register_buffer("input_ids", clip.tokenize(self.prompts), persistent=False)

    @abstractmethod
    def forward(self, clip: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes) of images (batch, 1 or 3, height, width) in [0, 1]."""

    def logits_and_attention(self, clip: ClipEncoder, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits as :meth:`forward`, and an attention map (batch, rows, columns); None for adapters without attention."""
        return self(clip, images), None

    def observe(self, clip: ClipEncoder, train: Iterable[dict[str, Any]], val: Iterable[dict[str, Any]]) -> None:
        """Process the labelled images once before training; nothing by default."""

    def clip_parameters(self, clip: ClipEncoder) -> list[nn.Parameter]:
        """Parameters that the adapter added inside the CLIP and that train with it; none by default."""
        return []
