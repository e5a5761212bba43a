"""Questions and answers in other words, by any endpoint that speaks OpenAI's chat completions; how MedSeg-QA was worded."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zoo.chat_completions import ChatCompletions, ReplyError, json_in
from zoo.data.conversations.records import SEG, QuestionError, Turn, validate_question

INSTRUCTIONS = (
    "You reword questions and answers about medical images. Keep the meaning and every fact, add none. "
    f"Keep each {SEG} of the answer where its target is named. If the kind is 'implicit', the question must not name the target. "
    'Reply with JSON alone: {"question": "...", "answer": "..."}'
)


@dataclass
class Rewriter(ChatCompletions):
    """A model that rewords turns; what it has replied is kept in its ``memory``, so that an interrupted run goes on.

    Attributes:
        kept: how many turns were kept as they were, since a reply did not fit.
    """

    settings: dict[str, Any] = field(default_factory=lambda: {"temperature": 0.7})
    kept: int = 0

    def rewrite(self, turn: Turn) -> Turn:
        """A turn in other words; as it was where the reply is malformed, loses a mask, or names the target of an implicit question.

        Raises:
            EndpointError: there is no reply.
        """
        targets = [target.name for target in turn.targets]
        asked = json.dumps({"kind": turn.kind, "targets": targets, "question": turn.question, "answer": turn.answer})
        try:
            content = json_in(self.reply(INSTRUCTIONS, asked))
            reworded = replace(
                turn, question=validate_question(content["question"]), answer=" ".join(content["answer"].split())
            )
        except (ReplyError, KeyError, TypeError, AttributeError, QuestionError):
            reworded = turn
        if reworded is turn or not fits(turn, reworded):
            self.kept += 1
            return turn
        return reworded


def fits(turn: Turn, reworded: Turn) -> bool:
    """Whether a reworded turn has the masks of the first, an answer, and a question that does not give an implicit target away."""
    names: Sequence[str] = [target.finding.lower() for target in turn.targets]
    gives_away = turn.kind == "implicit" and any(name and name in reworded.question.lower() for name in names)
    return reworded.answer.count(SEG) == turn.answer.count(SEG) and bool(reworded.answer) and not gives_away
