"""Reports judged by a language model behind any endpoint that speaks OpenAI's chat completions."""

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Interval

from zoo.chat_completions import ChatCompletions, EndpointError, ReplyError, json_in
from zoo.errors import ArgumentError, ZooWarning
from zoo.paths import cache_folder
from zoo.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt
from zoo.registry import register

PROMPT = """\
Compare a candidate radiology report with the reference report of the same image, and judge its findings, not its style.

Reference report:
{reference}

Candidate report:
{report}

Count the findings of the reference that the candidate states correctly (matched findings). Then count the candidate's clinically
significant errors, those that could change what is done for the patient, by kind:
- false_finding: a finding that the reference does not have
- missing_finding: a finding of the reference that is missing
- wrong_location: a finding in the wrong place
- wrong_severity: a finding of the wrong severity
- false_comparison: a comparison with an earlier image that the reference does not make
- missing_comparison: a change since an earlier image that is missing

Reply with JSON alone:
{"matched_findings": 0, "significant_errors": {"false_finding": 0, "missing_finding": 0, "wrong_location": 0, \
"wrong_severity": 0, "false_comparison": 0, "missing_comparison": 0}}"""
"""In our words; it counts what GREEN (Ostmeier et al., arXiv 2405.03595) counts."""

_TRIED = "There is a large left pleural effusion."


@register("metric", "judge")
class Judge:
    """``matched / (matched + clinically significant errors)`` of each report, as GREEN, counted by a language model of the user's.

    Reports and references are sent to the endpoint: mind whose they are. Replies are kept in a file, so that each pair is sent
    once; a reply without a score gives the report none, with a warning, and is asked for again by the next run.
    """

    def __init__(
        self,
        endpoint: str,
        model: str,
        key_variable: str | None = None,
        prompt: str | None = None,
        memory: str | None = None,
        timeout: Annotated[float, Interval(gt=0, le=3600)] = 120.0,
        retries: NonNegativeInt = 4,
        requests: Annotated[int, Interval(ge=1, le=64)] = 4,
        max_tokens: PositiveInt = 1024,
        temperature: NonNegativeFloat = 0.0,
    ) -> None:
        """Say whom to ask.

        Args:
            endpoint: address of the API, as http://localhost:8000/v1.
            model: its name there.
            key_variable: environment variable that holds the key; none is sent if None.
            prompt: text file with ``{reference}`` and ``{report}`` in their places; :data:`PROMPT` if None. The reply holds JSON
                with a ``score`` from 0 to 1, or with ``matched_findings`` and ``significant_errors``, a number or numbers by kind.
            memory: file of replies; one of the cache for this endpoint, model and prompt if None.
            timeout: seconds to wait for a reply.
            retries: how often to ask again where the endpoint is busy or cannot be reached.
            requests: at a time.
            max_tokens: of a reply.
            temperature: of its sampling.
        """
        self.endpoint, self.model, self.key_variable, self.memory = endpoint, model, key_variable, memory
        self.prompt, self.timeout, self.retries, self.requests = prompt, timeout, retries, requests
        self.settings = {"temperature": temperature, "max_tokens": max_tokens}

    def check(self) -> None:
        """Read the prompt, the key and what was replied before.

        Raises:
            ArgumentError: one of them is missing, or the prompt has no place for a report.
        """
        _ = self._chat

    def prepare(self) -> None:
        """Ask once, so that an endpoint that is down, or replies without a score, is known before reports are generated.

        Raises:
            EndpointError: the endpoint does not reply, or its reply has no score.
        """
        reply = self._reply(_TRIED, _TRIED)
        if math.isnan(score_of(reply)):
            raise EndpointError(f"the judge {self.model} gives no score for '{_TRIED}', but: {reply[:200]!r}")

    def _reply(self, report: str, reference: str) -> str:
        text = self._template.replace("{reference}", reference).replace("{report}", report)
        return self._chat.reply("", text, keep=lambda reply: not math.isnan(score_of(reply)))

    def __call__(self, reports: Sequence[str], references: Sequence[str]) -> torch.Tensor:
        """A score in [0, 1] for each report (n); NaN where the reply has none.

        Raises:
            EndpointError: the endpoint does not reply, or no reply has a score.
        """
        with ThreadPoolExecutor(self.requests) as pool:
            replies = list(pool.map(self._reply, reports, references))
        scores = [score_of(reply) for reply in replies]
        without = [reply for reply, score in zip(replies, scores, strict=True) if math.isnan(score)]
        if without:
            said = f"{len(without)} of {len(replies)} replies of the judge {self.model} have no score, as: {without[0][:200]!r}"
            if len(without) == len(replies) > 1:
                raise EndpointError(f"{said}; look at its prompt, max_tokens and model")
            warnings.warn(f"{said}; these reports do not count in its mean", ZooWarning, stacklevel=2)
        return torch.tensor(scores, dtype=torch.float32)

    @cached_property
    def _template(self) -> str:
        if self.prompt is None:
            return PROMPT
        try:
            template = Path(self.prompt).expanduser().read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ArgumentError(f"the judge's prompt cannot be read: {error}") from error
        if lacking := [place for place in ("{reference}", "{report}") if place not in template]:
            raise ArgumentError(f"{self.prompt}: the judge's prompt lacks {' and '.join(lacking)}")
        return template

    @cached_property
    def _chat(self) -> ChatCompletions:
        name = hashlib.sha256(f"{self.endpoint}\n{self.model}\n{self._template}".encode()).hexdigest()[:16]
        memory = cache_folder() / "metrics" / f"judge-{name}.jsonl" if self.memory is None else Path(self.memory)
        return ChatCompletions(
            self.endpoint, self.model, memory.expanduser(), self.key_variable, self.timeout, self.retries, self.settings
        )


def score_of(reply: str) -> float:
    """The score in a judge's reply; NaN if there is none.

    Without a matched finding it is 0, as GREEN's, unless there is no error either: a reply of zeros says that both reports agree
    on nothing to find, and scores 1.
    """
    try:
        content = json_in(reply)
        if "score" in content:
            score = _number(content["score"])
            return score if score <= 1 else math.nan
        matched, errors = _number(content["matched_findings"]), content["significant_errors"]
        total = sum(map(_number, errors.values())) if isinstance(errors, Mapping) else _number(errors)
    except (ReplyError, KeyError, TypeError, AttributeError):
        return math.nan
    return matched / (matched + total) if matched + total else 1.0


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1000:
        raise ReplyError(f"{value!r} is no count")
    return float(value)
