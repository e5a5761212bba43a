"""What methods export: a graph from images to numbers, or weights with LoRA merged."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safetensors.torch import save_file
from torch import nn

from zoo.errors import UnsupportedError
from zoo.merging import merge_lora


@dataclass(frozen=True)
class Exportable:
    """A module that maps images (batch, *input_shape) in [0, 1] to one tensor, and what that tensor is.

    ``names`` are of the output's second dimension; ``preprocessing`` says how an image gets the input's size.
    """

    module: nn.Module
    input_shape: tuple[int, int, int]
    output_name: str
    output: str
    names: tuple[str, ...]
    preprocessing: str


@runtime_checkable
class GraphExport(Protocol):
    """A method with a fixed graph."""

    def exportable(self) -> Exportable:
        """The graph, in evaluation mode."""


@runtime_checkable
class MergedExport(Protocol):
    """A method whose LoRA can be merged into its base."""

    def save_merged(self, folder: Path) -> None:
        """Write the merged base in its own format; the method's weights change in place."""


class MergedLanguageModel:
    """Of methods with a ``context``: the language model as transformers reads it, all other trained weights beside."""

    context: Any

    def merged_model(self) -> tuple[Any, Any]:
        """Transformers' model and tokenizer."""
        return self.context.lm, self.context.tokenizer

    def save_merged(self, folder: Path) -> None:
        """``config.json`` and safetensors of the language model, its tokenizer, and ``method.safetensors``: what else trained.

        Raises:
            UnsupportedError: nothing is merged: it was trained without LoRA, or on a quantised base.
        """
        model, tokenizer = self.merged_model()
        assert isinstance(self, nn.Module)
        (prefix,) = (name for name, part in self.named_modules() if part is model)
        state = {name: value for name, value in self.trained_state().items() if not name.startswith(f"{prefix}.")}  # type: ignore[operator]
        if not merge_lora(model):
            raise UnsupportedError(f"this {type(self).__name__} was trained without LoRA, so nothing can be merged")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if state:
            save_file({name: value.contiguous() for name, value in state.items()}, folder / "method.safetensors")
