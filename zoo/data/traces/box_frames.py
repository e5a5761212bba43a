"""Boxes as the text of a trace names them: in pixels of the film, or in a frame that every film is stretched over.

Everything outside of the text, as records, predictions, crops, metrics and pages, has boxes in pixels of the film.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Interval

from zoo.data.traces.records import Box, IvlRecord, Step

BoxFrameName = Literal["pixels"] | Annotated[int, Interval(ge=8, le=16_384)]
"""``pixels`` of the film, or the side of a frame in which each film is that wide and that high."""


@dataclass(frozen=True)
class BoxFrame:
    """A frame for the boxes in a text; sizes are (height, width) of the film.

    Attributes:
        side: of the frame, or "pixels" for the film's own, so that boxes are written and read as they are.
    """

    side: BoxFrameName

    def to_text(self, box: Box, size: tuple[int, int]) -> Box:
        """A box in pixels of a film as its text names it, to the nearest number; never empty where the box is not."""
        if self.side == "pixels":
            return box
        height, width = size
        left, top = (min(_scaled(box[i], self.side, n), self.side - 1) for i, n in ((0, width), (1, height)))
        right, bottom = _scaled(box[2], self.side, width), _scaled(box[3], self.side, height)
        return left, top, max(right, left + 1), max(bottom, top + 1)

    def to_pixels(self, box: Box, size: tuple[int, int]) -> Box:
        """A box that a text names in pixels of a film; one that ends outside the frame ends outside the film."""
        if self.side == "pixels":
            return box
        height, width = size
        left, top = _scaled(box[0], width, self.side), _scaled(box[1], height, self.side)
        right, bottom = _scaled(box[2], width, self.side), _scaled(box[3], height, self.side)
        return left, top, max(right, left + 1), max(bottom, top + 1)

    def record_to_text(self, record: IvlRecord, size: tuple[int, int]) -> IvlRecord:
        """A record with the boxes of its steps as its text names them."""
        steps = [replace(step, box=step.box and self.to_text(step.box, size)) for step in record.steps]
        return replace(record, steps=steps)

    def steps_to_pixels(self, steps: Sequence[Step], size: tuple[int, int]) -> list[Step]:
        """Steps that were read from a text, with their boxes in pixels of the film."""
        return [replace(step, box=step.box and self.to_pixels(step.box, size)) for step in steps]


def _scaled(value: int, to: int, of: int) -> int:
    """``value / of * to`` to the nearest integer, halves up, without the error of floats."""
    return (2 * value * to + of) // (2 * of)
