"""Conversations in a vision-language model's own chat template, with each image as its own processor writes it."""

from collections.abc import Sequence
from typing import Any

from zoo.constants import IGNORE_INDEX
from zoo.errors import ArgumentError, WeightsError
from zoo.language.image_reader import ImageReader

ChatTurn = tuple[str, str | None]
_MARKS = ("Alpha", "Omega")


class ChatFormat:
    """Token ids of conversations.

    An answer follows the template's generation prompt, as it does when it is generated, and ends with the token that ends it in
    the template, or else with the end-of-sequence token, as in LLaVA-1.5's training. Nothing after that token is learned.

    Attributes:
        end_token_id: ends an answer.
    """

    def __init__(self, processor: Any, reader: ImageReader, stop_token_ids: Sequence[int], name: str) -> None:
        """Find out how the template begins and ends an answer.

        Args:
            processor: transformers' processor, with the template and the tokenizer.
            reader: says what stands for an image.
            stop_token_ids: that the model may end an answer by.
            name: of the model, for errors.

        Raises:
            WeightsError: there is no chat template.
        """
        self._processor, self._tokenizer, self._reader, self._name = processor, processor.tokenizer, reader, name
        self._template = processor.chat_template or self._tokenizer.chat_template
        if self._template is None:
            raise WeightsError(f"{name} has no chat template; its folder lacks chat_template.jinja")
        question, answer = _MARKS
        prompt = self._render([_user(question, image=True)], generate=True)
        complete = self._render([_user(question, image=True), _assistant(answer)])
        before, _, after = complete.rpartition(answer)
        self._lead = before.removeprefix(prompt) if before.startswith(prompt) else ""
        tail = self.encode(after)
        ends = [place for place, token in enumerate(tail) if token in stop_token_ids]
        self.end_token_id = tail[ends[0]] if ends else int(self._tokenizer.eos_token_id)
        self._after = tail[ends[0] + 1 :] if ends else []

    def tokenize(self, turns: Sequence[ChatTurn]) -> tuple[list[int], list[int]]:
        """Input ids and labels of a conversation about one image; see :meth:`GlobalContext.tokenize`.

        Raises:
            ArgumentError: the template writes earlier turns otherwise than it wrote them as the last ones.
        """
        messages: list[dict[str, Any]] = []
        input_ids: list[int] = []
        labels: list[int] = []
        rendered = ""
        for question, answer in turns:
            messages.append(_user(question, image=not messages))
            prompt = self._render(messages, generate=True)
            if not prompt.startswith(rendered):
                raise ArgumentError(
                    f"the chat template of {self._name} rewrites earlier turns: ask one question at a time"
                )
            input_ids += self.encode(prompt.removeprefix(rendered), first=not input_ids)
            labels += [IGNORE_INDEX] * (len(input_ids) - len(labels))
            if answer is None:
                break
            learned = [*self.encode(self._lead + answer), self.end_token_id]
            input_ids, labels = [*input_ids, *learned], [*labels, *learned]
            messages.append(_assistant(answer))
            rendered = self._render(messages)
            if len(messages) < 2 * len(turns):
                input_ids += self._after
        return input_ids, labels

    def image_block(self) -> list[int]:
        """Token ids of an image within text, with what the template writes around it."""
        first, last = _MARKS
        placeholder = self._reader.placeholder
        parts = [{"type": "text", "text": first}, {"type": "image"}, {"type": "text", "text": last}]
        text = self._render([{"role": "user", "content": parts}])
        between = text.partition(first)[2].partition(last)[0].strip(" ")
        return self.encode(between if placeholder in between else placeholder)

    def encode(self, text: str, *, first: bool = False) -> list[int]:
        """Token ids; a placeholder becomes its image's block, and a text that is the ``first`` begins as the tokenizer does it."""
        begin = self._tokenizer.bos_token
        special = first and not (begin and text.startswith(begin))
        expanded = text.replace(self._reader.placeholder, self._reader.block)
        return list(self._tokenizer.encode(expanded, add_special_tokens=special))

    def _render(self, messages: list[dict[str, Any]], generate: bool = False) -> str:
        return str(
            self._processor.apply_chat_template(
                messages, chat_template=self._template, tokenize=False, add_generation_prompt=generate
            )
        )


class PrefixFormat:
    """PaliGemma's one question (arXiv 2412.03555): image, beginning of sequence, question, line feed; then the answer.

    Attributes:
        end_token_id: ends an answer.
    """

    def __init__(self, processor: Any, reader: ImageReader) -> None:
        """Take the tokenizer of a processor."""
        self._tokenizer, self._reader = processor.tokenizer, reader
        self.end_token_id = int(self._tokenizer.eos_token_id)
        self._newline = self.encode("\n")[-1]

    def tokenize(self, turns: Sequence[ChatTurn]) -> tuple[list[int], list[int]]:
        """Input ids and labels of a question and its answer.

        Raises:
            ArgumentError: there is more than one question.
        """
        if len(turns) != 1:
            raise ArgumentError("PaliGemma has no chat: it answers one question about an image, without a history")
        ((question, answer),) = turns
        line = " ".join(question.split())
        prompt = self.encode(f"{self._reader.block}{self._tokenizer.bos_token}{line}\n")
        learned = [] if answer is None else [*self.encode(answer), self.end_token_id]
        return [*prompt, *learned], [*[IGNORE_INDEX] * len(prompt), *learned]

    def image_block(self) -> list[int]:
        """Raises ArgumentError: an image stands before the question alone."""
        raise ArgumentError("PaliGemma reads images before the question alone, none on the way; use another model")

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def is_suffix(self, input_ids: Any) -> Any:
        """Whether each token (batch, positions) comes after the question's line feed."""
        begun = (input_ids == self._tokenizer.bos_token_id).cumsum(dim=1) > 0
        ends = (begun & (input_ids == self._newline)).long()
        return ends.cumsum(dim=1) - ends > 0


def _user(question: str, image: bool) -> dict[str, Any]:
    return {"role": "user", "content": [*([{"type": "image"}] if image else []), {"type": "text", "text": question}]}


def _assistant(answer: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": answer}]}
