"""Ranges of numbers: the type of a component's numeric argument says what it may be, and ``zoo check`` reports what it is not.

``rank: PositiveInt = 16`` is an int for type checkers; recipes that set it to 0 are refused with the range. A range that
no name here has is written in place: ``Annotated[int, Interval(ge=1, le=12)]``, with the marks of ``annotated_types``.
"""

from typing import Annotated

from annotated_types import Ge, Gt, Interval

_MOST = 10_000_000
"""No count of a recipe is larger; what is would exhaust the memory before it is an error."""

PositiveInt = Annotated[int, Interval(ge=1, le=_MOST)]
NonNegativeInt = Annotated[int, Interval(ge=0, le=_MOST)]
PixelSide = Annotated[int, Interval(ge=1, le=16_384)]
"""Side of an image in pixels."""
Processes = Annotated[int, Interval(ge=0, le=256)]
PositiveProcesses = Annotated[int, Interval(ge=1, le=256)]
BatchSize = Annotated[int, Interval(ge=1, le=65_536)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
"""From 0 to 1, both included: shares, probabilities, factors of a mean."""
Dropout = Annotated[float, Interval(ge=0, lt=1)]
"""The probability that an element is dropped; with 1 nothing would be learned."""
Seed = Annotated[int, Interval(ge=0, lt=2**32)]
"""As numpy's and Lightning's seeds."""
