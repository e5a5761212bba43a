"""Questions and answers in other words, by any endpoint that speaks OpenAI's chat completions; how MedSeg-QA was worded."""

import hashlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zoo.data.conversations.records import SEG, QuestionError, Turn, validate_question
from zoo.errors import ArgumentError, ZooError

INSTRUCTIONS = (
    "You reword questions and answers about medical images. Keep the meaning and every fact, add none. "
    f"Keep each {SEG} of the answer where its target is named. If the kind is 'implicit', the question must not name the target. "
    'Reply with JSON alone: {"question": "...", "answer": "..."}'
)
_RETRIES = 3
_MAX_REPLY = 1_000_000


class EndpointError(ZooError, ConnectionError):
    """An endpoint that cannot be reached, refuses, or does not reply as OpenAI's would."""


@dataclass
class Rewriter:
    """Rewords turns; what has been reworded is kept in a file, so that an interrupted run goes on.

    Attributes:
        endpoint: address of the API, as http://localhost:8000/v1.
        model: its name there.
        memory: file of replies, one a line.
        key_variable: name of the environment variable that holds the key; none is sent if None.
        timeout: seconds to wait for a reply.
        kept: how many turns were kept as they were, since a reply did not fit.

    Raises:
        ArgumentError: the endpoint is no address of the web, or the variable is not set.
    """

    endpoint: str
    model: str
    memory: Path
    key_variable: str | None = None
    timeout: float = 60.0
    kept: int = 0
    _replies: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the address and read what was reworded before."""
        if not self.endpoint.startswith(("http://", "https://")):
            raise ArgumentError(f"endpoint is '{self.endpoint}'; expected an address such as http://localhost:8000/v1")
        if self.key_variable and not os.environ.get(self.key_variable):
            raise ArgumentError(f"the environment variable {self.key_variable} is not set; it should hold the key")
        if self.memory.is_file():
            for number, line in enumerate(self.memory.read_text(encoding="utf-8").splitlines(), start=1):
                try:
                    content = json.loads(line)
                    self._replies[content["key"]] = str(content["reply"])
                except (ValueError, KeyError, TypeError) as error:
                    raise ArgumentError(
                        f"{self.memory}: line {number}: is no reply that was kept; remove it"
                    ) from error

    def rewrite(self, turn: Turn) -> Turn:
        """A turn in other words; as it was where the reply is malformed, loses a mask, or names the target of an implicit question.

        Raises:
            EndpointError: there is no reply.
        """
        reply = self._reply(turn)
        try:
            content = json.loads(reply[reply.index("{") : reply.rindex("}") + 1])
            reworded = replace(
                turn, question=validate_question(content["question"]), answer=" ".join(content["answer"].split())
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, QuestionError):
            reworded = turn
        if reworded is turn or not fits(turn, reworded):
            self.kept += 1
            return turn
        return reworded

    def _reply(self, turn: Turn) -> str:
        targets = [target.name for target in turn.targets]
        asked = json.dumps({"kind": turn.kind, "targets": targets, "question": turn.question, "answer": turn.answer})
        key = hashlib.sha256(f"{self.model}\n{INSTRUCTIONS}\n{asked}".encode()).hexdigest()[:20]
        if key not in self._replies:
            self._replies[key] = self._ask(asked)
            self.memory.parent.mkdir(parents=True, exist_ok=True)
            with self.memory.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "reply": self._replies[key]}) + "\n")
        return self._replies[key]

    def _ask(self, text: str) -> str:
        messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": text}]
        body = json.dumps({"model": self.model, "messages": messages, "temperature": 0.7}).encode()
        headers = {"Content-Type": "application/json"}
        if self.key_variable:
            headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        request = urllib.request.Request(f"{self.endpoint.rstrip('/')}/chat/completions", body, headers)
        for attempt in range(_RETRIES):
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    reply = json.loads(response.read(_MAX_REPLY))
            except urllib.error.HTTPError as error:
                if error.code not in (429, 500, 502, 503, 504) or attempt == _RETRIES - 1:
                    raise EndpointError(f"{self.endpoint} refuses: {error.code} {error.reason}") from error
            except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
                if attempt == _RETRIES - 1:
                    raise EndpointError(f"{self.endpoint} cannot be reached: {error}") from error
            except (ValueError, RecursionError) as error:
                raise EndpointError(f"{self.endpoint} does not reply with JSON: {error}") from error
            else:
                return _content(reply)
            time.sleep(2**attempt / 10)
        raise EndpointError(f"{self.endpoint} cannot be reached")


def _content(reply: Any) -> str:
    try:
        return str(reply["choices"][0]["message"]["content"])
    except (KeyError, IndexError, TypeError) as error:
        raise EndpointError(f"the reply is not OpenAI's: {str(reply)[:200]}") from error


def fits(turn: Turn, reworded: Turn) -> bool:
    """Whether a reworded turn has the masks of the first, an answer, and a question that does not give an implicit target away."""
    names: Sequence[str] = [target.finding.lower() for target in turn.targets]
    gives_away = turn.kind == "implicit" and any(name and name in reworded.question.lower() for name in names)
    return reworded.answer.count(SEG) == turn.answer.count(SEG) and bool(reworded.answer) and not gives_away
