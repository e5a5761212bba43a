"""The key-value cache of a batch of sequences that grow by different numbers of tokens at a time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

if TYPE_CHECKING:
    from zoo.language.global_context import GlobalContext


class RaggedCache:
    """Sequences of a batch, and what a model has computed of them; rows are continued by any numbers of tokens, none included.

    Shorter continuations are padded on the left and masked, so that the last position is each row's newest token. A window of
    attention counts places in the cache: for models with one, padding goes to the right, and then to the beginning of its row.

    Attributes:
        key_values: transformers' cache.
        input_ids: (rows, positions) of everything so far, padding included.
        attention_mask: (rows, positions), 0 for padding.
    """

    def __init__(self, context: "GlobalContext", rows: int, device: torch.device) -> None:
        """Begin with empty rows."""
        self._context, self.key_values = context, DynamicCache()
        self.input_ids = torch.zeros(rows, 0, dtype=torch.long, device=device)
        self.attention_mask = torch.zeros_like(self.input_ids)
        self._positions = torch.zeros(rows, 1, dtype=torch.long, device=device)
        """Position id of each row's next token."""

    def append(self, blocks: Sequence[Sequence[int]], image_embeds: Sequence[torch.Tensor]) -> torch.Tensor:
        """Last hidden states (rows, width) after token ids of each row, with the image tokens in them in order."""
        length, device = max(map(len, blocks)), self.attention_mask.device
        windowed, padding = self._context.has_window, self._context.eos_token_id

        def padded(block: Sequence[int], value: int) -> list[int]:
            fill = [value] * (length - len(block))
            return [*block, *fill] if windowed else [*fill, *block]

        input_ids = torch.tensor([padded(block, padding) for block in blocks], device=device)
        mask = torch.tensor([padded([1] * len(block), 0) for block in blocks], device=device)
        position_ids = self._context.position_ids(input_ids, mask) + self._positions
        following = self._context.next_position_ids(position_ids)
        following = following[0] if following.ndim == 3 else following
        self._positions = torch.where(mask.any(dim=1, keepdim=True), following, self._positions)
        self.input_ids = torch.cat([self.input_ids, input_ids], dim=1)
        self.attention_mask = torch.cat([self.attention_mask, mask], dim=1)
        hidden_states = self._context.continued(self, length, position_ids, image_embeds)
        if not windowed or min(map(len, blocks)) == length:
            return hidden_states[:, -1]
        self._move_padding_to_the_left()
        last = torch.tensor([max(len(block) - 1, 0) for block in blocks], device=device)
        return hidden_states[torch.arange(len(blocks), device=device), last]

    def _move_padding_to_the_left(self) -> None:
        order = self.attention_mask.argsort(dim=1, stable=True)
        self.input_ids, self.attention_mask = self.input_ids.gather(1, order), self.attention_mask.gather(1, order)
        layers: list[Any] = self.key_values.layers
        for layer in layers:
            places = order[:, None, :, None].expand_as(layer.keys)
            layer.keys, layer.values = layer.keys.gather(2, places), layer.values.gather(2, places)
