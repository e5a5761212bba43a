"""How a vision-language model's own processor puts an image of one size into text: placeholders, marks, and grids."""

from collections.abc import Sequence
from typing import Any

import torch

from zoo.data.io.letterbox import letterbox
from zoo.errors import ArgumentError


class ImageReader:
    """Letterboxes images to one square, so that each has the same tokens, and gives them to the model's own processor.

    Attributes:
        side: of the square in pixels; the processor may resize it, or cut it into tiles.
        block: the text that the processor writes in the place of an image's placeholder.
        tokens: image tokens in it.
        typed_ids: ids of the tokens whose type is that of images.
        grids: what a model's positions need of each image, as ``image_grid_thw`` (1, 3).
    """

    def __init__(self, processor: Any, image_token: str, side: int, several: bool = False) -> None:
        """Read a blank square.

        Args:
            processor: transformers' processor.
            image_token: the token that stands for an image's features (a processor's placeholder may be another one).
            side: of the square in pixels.
            several: the images are among several of one text.

        Raises:
            ArgumentError: the processor does not say what it writes for an image.
        """
        self.side, self._processor, self._several = side, processor, False
        blank = [torch.zeros(3, side, side, dtype=torch.uint8)]
        inputs = self._process(blank)
        if several and "batch_num_images" in inputs:
            self._several = True
            inputs = self._process(blank)
        offsets = inputs.get("text_replacement_offsets")
        if not offsets or not offsets[0]:
            raise ArgumentError(
                f"{type(processor).__name__} does not say which tokens an image has; it cannot be used here"
            )
        self.block = str(offsets[0][0]["replacement"])
        self.typed_ids = [token for token in processor.image_token_ids if token is not None]
        self.tokens = self.block.count(image_token)
        self.grids = {name: value[:1] for name, value in inputs.items() if name.endswith("grid_thw")}

    @property
    def placeholder(self) -> str:
        """The token that the processor replaces by :attr:`block`."""
        return str(self._processor.image_token)

    def read(self, images: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The processor's tensors for images (1 or 3, height, width) in [0, 1], which it sees as 8 bits."""
        squares = [(letterbox(image, self.side) * 255).round().to(torch.uint8) for image in images]
        processed = self._process(squares)
        return {name: value for name, value in processed.items() if isinstance(value, torch.Tensor)}

    def _process(self, squares: list[torch.Tensor]) -> dict[str, Any]:
        options = {"return_tensors": "pt", "return_text_replacement_offsets": True}
        if not self._several:
            text, images = [self.placeholder] * len(squares), [[square] for square in squares]
        else:  # an image alone counts as several if it comes twice
            shown = squares if len(squares) > 1 else squares * 2
            text, images = [self.placeholder * len(shown)], [shown]
        return dict(self._processor(text=text, images=images, **options))
