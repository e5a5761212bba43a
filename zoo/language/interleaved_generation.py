"""Generation of text by a global context that is given images on the way: interleaved reasoning on vision-language models.

One key-value cache is kept through all segments. A sample that is to be given an image waits until no sample of the batch can
go on without one; then the images of all that wait enter in one prefill.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from zoo.language.global_context import GlobalContext
from zoo.language.ragged_cache import RaggedCache


class ImageProvider(Protocol):
    """Gives images on the way; both methods know a sample by its index and the text since its last image."""

    def is_due(self, index: int, text: str) -> bool:
        """Whether an image follows the text."""

    def provide(self, texts: dict[int, str]) -> list[torch.Tensor]:
        """Image embeddings (tokens, width) that follow each text, in order."""


@dataclass
class Continuation:
    """What was generated for one prompt: ids of the texts between its images, their text, and whether it ended by itself."""

    segments: list[list[int]] = field(default_factory=lambda: [[]])
    texts: list[str] = field(default_factory=list)
    ended: bool = False
    remaining: int = 0


@torch.no_grad()
def generate_interleaved(
    context: GlobalContext,
    prompts: Sequence[Sequence[int]],
    image_embeds: Sequence[torch.Tensor],
    max_new_tokens: int,
    images: ImageProvider | None = None,
) -> list[Continuation]:
    """Continue prompts greedily.

    Args:
        context: the model.
        prompts: input ids of each, with a placeholder for each image token.
        image_embeds: projected image tokens (tokens, width) of all images of each prompt, in order.
        max_new_tokens: most tokens of text of each.
        images: provides images, asked after each token with a full stop.
    """
    results = [Continuation(remaining=max_new_tokens) for _ in prompts]
    cache = RaggedCache(context, len(prompts), image_embeds[0].device)
    running = set(range(len(prompts)))
    waiting: dict[int, str] = {}
    hidden_states = cache.append([list(prompt) for prompt in prompts], list(image_embeds))
    while running or waiting:
        if running:
            next_ids = context.next_token_ids(hidden_states).tolist()
        for index in sorted(running):
            text = _take(context, results[index], next_ids[index])
            if images is not None and text and results[index].remaining > 0 and images.is_due(index, text):
                waiting[index] = text
        running = {i for i in running if i not in waiting and not results[i].ended and results[i].remaining > 0}
        if running:
            hidden_states = cache.append([[next_ids[i]] if i in running else [] for i in range(len(prompts))], [])
        elif waiting:
            assert images is not None
            waiting = dict(sorted(waiting.items()))
            provided = dict(zip(waiting, images.provide(waiting), strict=True))
            blocks: list[list[int]] = [[] for _ in prompts]
            for index, embeds in provided.items():
                blocks[index] = [results[index].segments[-1][-1], *context.image_block(len(embeds))]
                results[index].segments.append([])
            hidden_states = cache.append(blocks, list(provided.values()))
            running, waiting = set(provided), {}
    for result in results:
        result.texts = [context.tokenizer.decode(segment) for segment in result.segments]
    return results


def _take(context: GlobalContext, result: Continuation, token: int) -> str:
    """Add a token to a sample; gives the text since its last image after a full stop, else ""."""
    if token in context.stop_token_ids:
        result.ended = True
        return ""
    result.segments[-1].append(token)
    result.remaining -= 1
    return str(context.tokenizer.decode(result.segments[-1])) if "." in context.tokenizer.decode([token]) else ""
