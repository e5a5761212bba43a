"""Global context understanding: a language model that reads an image and a conversation and answers with ``[SEG]`` tokens.

MedSeg-R (arXiv 2506.10465) names the module and gives no parts; this one follows LISA (arXiv 2308.00692) and LLaVA (arXiv
2304.08485), so it is reconstructed. ``[SEG]`` joins the vocabulary, and its last hidden state is what a mask is drawn from.
Image tokens stand in the sequence one for one, so a position in the ids is the position in the merged sequence: nothing is
offset by a number that a model happens to have.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import nn
from transformers import DynamicCache

from zoo.constants import IGNORE_INDEX
from zoo.data.conversations.records import SEG
from zoo.data.io.letterbox import fitted
from zoo.encoders.vision import VisionEncoder, merged, projector
from zoo.errors import ArgumentError
from zoo.language.causal_lm import CausalLanguage
from zoo.precision import base_dtype
from zoo.pretrained import fingerprint_of
from zoo.registry import Slot, register

IMAGE = "<image>"
Exchange = tuple[str, str | None]
"""A question and its answer; None where the answer is still to be given."""


@dataclass(frozen=True)
class Answer:
    """What was generated for one prompt: the text, a hidden state (n, width) for each ``[SEG]``, and whether it ended."""

    text: str
    tokens: torch.Tensor
    ended: bool


class GlobalContext(nn.Module):
    """A language model over image tokens and text; ``width`` is that of its hidden states.

    ``language`` is the transformer without its output layer ``output``; ``embedding`` embeds ids. ``seg`` and ``image`` are
    the ids of ``[SEG]`` and of an image token. Squares of ``merge`` x ``merge`` places are one image token.
    """

    width: int
    merge: int = 1
    seg: int
    image: int
    stop: int
    text: Any
    """The transformers tokenizer."""

    @property
    @abstractmethod
    def language(self) -> Any:
        """The transformer: inputs_embeds to ``last_hidden_state`` after its final norm."""

    @property
    @abstractmethod
    def whole(self) -> Any:
        """The transformers model that owns embedding and output layer; LoRA is put into it."""

    @abstractmethod
    def look(self, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Images (1 or 3, height, width) in [0, 1] to image tokens (tokens, own width) each; frozen, so cacheable."""

    def project(self, looked: torch.Tensor) -> torch.Tensor:
        """What was seen (..., places, own width) to image tokens (..., tokens, width); as it is where the model has done so."""
        return looked

    def vision_fingerprint(self) -> str:
        """Decides the result of :meth:`look`."""
        raise NotImplementedError

    def positions(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Position ids of a prefix (batch, positions)."""
        return (mask.cumsum(dim=1) - 1).clamp(min=0)

    def after(self, positions: torch.Tensor) -> torch.Tensor:
        """Position ids of the next token, given those so far."""
        return positions.amax(dim=-1, keepdim=True) + 1

    def hidden(self, ids: torch.Tensor, seen: Sequence[torch.Tensor]) -> torch.Tensor:
        """Last hidden states (batch, positions, width) of ids whose image tokens are those of ``seen`` (projected), in order.

        Ids are padded on the right, if at all: attention looks back, so padding needs no mask.
        """
        positions = self.positions(ids, torch.ones_like(ids))
        return self.language(inputs_embeds=self.embed(ids, seen), position_ids=positions).last_hidden_state

    def embed(self, ids: torch.Tensor, seen: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embeddings of ids, projected image tokens (tokens, width) in their places."""
        precision = base_dtype(self.language.parameters())  # of the language model, whatever that of a trained table
        embedded = self.whole.get_input_embeddings()(ids).to(precision)
        return embedded.masked_scatter((ids == self.image)[..., None], torch.cat(list(seen)).to(embedded.dtype))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits over the vocabulary."""
        layer = self.whole.get_output_embeddings()
        return layer(hidden.to(layer.weight.dtype))

    def sequence(self, exchanges: Sequence[Exchange], image_tokens: int) -> tuple[list[int], list[int]]:
        """A conversation as ids and labels; labels are ``IGNORE_INDEX`` but for the answers and their ends.

        Args:
            exchanges: questions and answers; the last answer may be None.
            image_tokens: how many tokens the image has.
        """
        messages: list[dict[str, Any]] = []
        ids: list[int] = []
        labels: list[int] = []
        written = ""
        for question, answer in exchanges:
            said = self._plain(question)
            messages.append({"role": "user", "content": said if messages else f"{IMAGE}\n{said}"})
            asked = self._chat(messages, prompt=True)
            ids += self._ids(asked.removeprefix(written), image_tokens)
            labels += [IGNORE_INDEX] * (len(ids) - len(labels))
            if answer is None:
                break
            messages.append({"role": "assistant", "content": answer})
            written = self._chat(messages, prompt=False)
            reply = self.text.encode(written.removeprefix(asked), add_special_tokens=False)
            reply = reply if self.stop in reply else [*reply, self.stop]
            ids, labels = [*ids, *reply], [*labels, *reply]
        return ids, labels

    def _chat(self, messages: list[dict[str, Any]], prompt: bool) -> str:
        return self.text.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)

    def _ids(self, text: str, image_tokens: int) -> list[int]:
        ids = self.text.encode(text, add_special_tokens=False)
        return [token for one in ids for token in ([one] * image_tokens if one == self.image else [one])]

    def _plain(self, question: str) -> str:
        """A question without special tokens, which would act as such."""
        for token in (*self.text.all_special_tokens, IMAGE, SEG):
            question = question.replace(token, " ")
        return question

    @torch.no_grad()
    def answer(
        self, prompts: Sequence[Sequence[int]], seen: Sequence[torch.Tensor], max_new_tokens: int = 96
    ) -> list[Answer]:
        """Answer prompts greedily, with one cache; the hidden state of each ``[SEG]`` is kept on the way.

        An answer that does not end is cut after ``max_new_tokens``, and says so.
        """
        length = max(map(len, prompts))
        device = seen[0].device
        ids = torch.tensor([[self.stop] * (length - len(p)) + list(p) for p in prompts], device=device)
        mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts], device=device)
        cache, positions = DynamicCache(), self.positions(ids, mask)
        embedded = self.embed(ids, seen)
        new: list[torch.Tensor] = []
        states: list[torch.Tensor] = []
        done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
        for step in range(max_new_tokens + 1):
            state = self.language(
                inputs_embeds=embedded, attention_mask=mask, position_ids=positions, cache=cache
            ).last_hidden_state[:, -1]
            if step:
                states.append(state)
            if step == max_new_tokens or bool(done.all()):
                break
            token = self._likeliest(state).masked_fill(done, self.stop)
            done = done | (token == self.stop)
            new.append(token)
            positions = self.after(positions)
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            embedded = self.whole.get_input_embeddings()(token[:, None]).to(embedded.dtype)
        return self._answers(torch.stack(new, dim=1), torch.stack(states, dim=1))

    def _likeliest(self, state: torch.Tensor) -> torch.Tensor:
        logits = self.logits(state)
        logits[:, self.image] = -torch.inf
        return logits.argmax(dim=-1)

    def _answers(self, new: torch.Tensor, states: torch.Tensor) -> list[Answer]:
        answers = []
        for row, state in zip(new, states, strict=True):
            ends = (row == self.stop).nonzero().flatten().tolist()
            kept = row[: ends[0]] if ends else row
            tokens = state[: len(kept)][kept == self.seg]
            answers.append(Answer(self.text.decode(kept.tolist()).strip(), tokens, bool(ends)))
        return answers

    def fingerprint(self) -> str:
        """sha256 over the names, shapes and float32 bytes of all weights that are not trained."""
        return fingerprint_of((name, value) for name, value in self.named_parameters() if not value.requires_grad)

    def _join_seg(self) -> None:
        """Give ``[SEG]`` (and, where the tokenizer has none, the image token) a place; old rows stay bit for bit."""
        if self.text is None:  # planned: the ids only have to be there
            old = self.whole.get_input_embeddings().num_embeddings
            resize_vocabulary(self.whole, old + 2)
            self.seg, self.image, self.stop = old, old + 1, 2
            return
        self.text.add_tokens([SEG])
        if IMAGE not in self.text.get_vocab():
            self.text.add_special_tokens({"additional_special_tokens": [IMAGE]})
        resize_vocabulary(self.whole, len(self.text))
        self.seg, self.image = self.text.convert_tokens_to_ids([SEG, IMAGE])
        self.stop = int(self.text.eos_token_id)


def resize_vocabulary(model: Any, size: int) -> None:
    """Make room for ``size`` tokens; new rows are the mean of the old ones, which stay bit for bit."""
    old = model.get_input_embeddings().num_embeddings
    if size <= old:
        return
    model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.weight[old:] = layer.weight[:old].mean(dim=0)


@register("language_model", "global_context")
class CausalContext(GlobalContext):
    """Any vision encoder, LLaVA-1.5's projector (Linear, GELU, Linear), any causal language model.

    Vision encoder and language model are frozen; the projector trains.
    """

    def __init__(
        self,
        vision: Annotated[VisionEncoder, Slot("vision_encoder")],
        model: Annotated[CausalLanguage, Slot("language_model")],
        merge: int = 1,
    ) -> None:
        """Join them.

        Args:
            vision: gives a square grid of tokens.
            model: reads them.
            merge: squares of merge x merge image tokens become one, so that sequences are shorter.

        Raises:
            ArgumentError: the grid does not divide into such squares.
        """
        super().__init__()
        side = math.isqrt(vision.tokens)
        if side % merge:
            raise ArgumentError(f"merge is {merge}, of {side} x {side} tokens")
        self.merge = merge
        self.vision, self.model = vision.requires_grad_(False), model.requires_grad_(False)
        self.width, self.text = model.width, model.tokenizer
        self.projector = projector(vision.width * merge**2, self.width)
        self._join_seg()

    def train(self, mode: bool = True) -> "CausalContext":
        """Switch mode; the vision encoder stays in evaluation mode."""
        super().train(mode)
        self.vision.eval()
        return self

    @property
    def whole(self) -> Any:
        """See :class:`GlobalContext`."""
        return self.model.model

    @property
    def language(self) -> Any:
        """See :class:`GlobalContext`."""
        return self.model.model.model

    @torch.no_grad()
    def look(self, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """See :class:`GlobalContext`."""
        return list(self.vision(torch.stack([fitted(image, self.vision.image_size) for image in images])))

    def project(self, looked: torch.Tensor) -> torch.Tensor:
        """See :class:`GlobalContext`."""
        side = math.isqrt(looked.shape[-2])
        maps = looked.unflatten(-2, (side, side)).movedim(-1, -3)
        return self.projector(merged(maps, self.merge).to(next(self.projector.parameters()).dtype))

    def vision_fingerprint(self) -> str:
        """See :class:`GlobalContext`."""
        return self.vision.fingerprint()
