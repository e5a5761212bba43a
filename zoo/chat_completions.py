"""Replies of any endpoint that speaks OpenAI's chat completions, kept in a file, so that an interrupted run goes on."""

import hashlib
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import ArgumentError, ZooError

_BUSY = (429, 500, 502, 503, 504)
_MAX_REPLY = 1_000_000
_LONGEST_WAIT = 60.0


class EndpointError(ZooError, ConnectionError):
    """An endpoint that cannot be reached, refuses, or does not reply as OpenAI's would."""


class ReplyError(ZooError, ValueError):
    """A reply that does not hold what was asked for."""


@dataclass
class ChatCompletions:
    """A model behind an endpoint, with what it has replied so far; several threads may ask at a time.

    Attributes:
        endpoint: address of the API, as http://localhost:8000/v1.
        model: its name there.
        memory: file of replies, one a line.
        key_variable: name of the environment variable that holds the key; none is sent if None. The key is never written.
        timeout: seconds to wait for a reply.
        retries: how often to ask again where the endpoint is busy or cannot be reached.
        settings: of the request, as ``temperature`` and ``max_tokens``.

    Raises:
        ArgumentError: the endpoint is no address of the web, the variable is not set, or the file holds something else.
    """

    endpoint: str
    model: str
    memory: Path
    key_variable: str | None = None
    timeout: float = 60.0
    retries: int = 2
    settings: dict[str, Any] = field(default_factory=dict)
    _replies: dict[str, str] = field(default_factory=dict)
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Check the address and read what was replied before."""
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

    def reply(self, instructions: str, text: str, keep: Callable[[str], bool] = lambda reply: True) -> str:
        """The reply to a text; that of an earlier run where it was kept.

        Args:
            instructions: the system's message; none is sent if empty.
            text: the user's message.
            keep: whether a reply is worth keeping; others are asked for again by the next run.

        Raises:
            EndpointError: there is no reply.
        """
        asked = json.dumps([self.endpoint, self.model, self.settings, instructions, text])
        key = hashlib.sha256(asked.encode()).hexdigest()[:20]
        if key in self._replies:
            return self._replies[key]
        reply = self._ask(instructions, text)
        if keep(reply):
            self._replies[key] = reply
            with self._writing:
                self.memory.parent.mkdir(parents=True, exist_ok=True)
                with self.memory.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "reply": reply}) + "\n")
        return reply

    def _ask(self, instructions: str, text: str) -> str:
        system = [{"role": "system", "content": instructions}] if instructions else []
        messages = [*system, {"role": "user", "content": text}]
        body = json.dumps({"model": self.model, "messages": messages, **self.settings}).encode()
        headers = {"Content-Type": "application/json"}
        if self.key_variable:
            headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        request = urllib.request.Request(f"{self.endpoint.rstrip('/')}/chat/completions", body, headers)
        for attempt in range(self.retries + 1):
            wait = 2**attempt / 10
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    reply = json.loads(response.read(_MAX_REPLY))
            except urllib.error.HTTPError as error:
                if error.code not in _BUSY or attempt == self.retries:
                    raise EndpointError(f"{self.endpoint} refuses: {error.code} {error.reason}") from error
                wait = max(wait, _retry_after(error))
            except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
                if attempt == self.retries:
                    late = isinstance(error, TimeoutError)
                    problem = f"does not answer within {self.timeout:g} s" if late else f"cannot be reached: {error}"
                    raise EndpointError(f"{self.endpoint} {problem}") from error
            except (ValueError, RecursionError) as error:
                raise EndpointError(f"{self.endpoint} does not reply with JSON: {error}") from error
            else:
                return _content(reply)
            time.sleep(wait)
        raise EndpointError(f"{self.endpoint} cannot be reached")


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Seconds that a busy endpoint asks to wait; 0 where it does not say."""
    try:
        return min(max(float(error.headers.get("Retry-After", 0)), 0.0), _LONGEST_WAIT)
    except ValueError:  # a date
        return 0.0


def _content(reply: Any) -> str:
    try:
        return str(reply["choices"][0]["message"]["content"])
    except (KeyError, IndexError, TypeError) as error:
        raise EndpointError(f"the reply is not OpenAI's: {str(reply)[:200]}") from error


def json_in(reply: str) -> Any:
    """The JSON object in a reply, whatever stands before and after it.

    Raises:
        ReplyError: there is none.
    """
    try:
        return json.loads(reply[reply.index("{") : reply.rindex("}") + 1])
    except (ValueError, RecursionError) as error:
        raise ReplyError(f"no JSON object in {reply[:200]!r}") from error
