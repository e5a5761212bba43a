"""Reports judged by an endpoint on this machine."""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.chat_server import chat, chat_server
from zoo.chat_completions import EndpointError
from zoo.errors import ArgumentError, ZooWarning
from zoo.metrics.intervals import measure
from zoo.metrics.judge import PROMPT, Judge, score_of

REPORTS, REFERENCES = ["Clear lungs.", "Large heart."], ["The lungs are clear.", "Small effusion."]


@pytest.fixture
def endpoint(tmp_path, monkeypatch) -> Iterator[Any]:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    with chat_server() as server:
        yield server


def counts(matched, **errors):
    return json.dumps({"matched_findings": matched, "significant_errors": errors})


def test_reports_are_scored_as_green_counts_them(endpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    endpoint.reply = lambda body: chat(
        counts(3, missing_finding=1) if "Clear lungs." in body["messages"][0]["content"] else counts(0, false_finding=2)
    )
    judge = Judge(endpoint.url, "small", key_variable="JUDGE_KEY", max_tokens=50)
    scores = judge(REPORTS, REFERENCES)
    assert scores.tolist() == [0.75, 0.0]
    assert measure(lambda o: float(o["s"].mean()), [{"s": scores}]).value == 0.375, "an interval as any metric"
    path, headers, body = endpoint.requests[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("small", 50, 0.0)
    asked = next(
        b["messages"][0]["content"] for *_, b in endpoint.requests if REPORTS[0] in b["messages"][0]["content"]
    )
    assert asked == PROMPT.replace("{reference}", REFERENCES[0]).replace("{report}", REPORTS[0])
    again = Judge(endpoint.url, "small", max_tokens=50)(REPORTS, REFERENCES)
    assert again.tolist() == [0.75, 0.0] and len(endpoint.requests) == 2
    kept = next((tmp_path / "cache" / "metrics").glob("judge-*.jsonl")).read_text()
    assert len(kept.splitlines()) == 2 and "secret" not in kept


def test_an_endpoint_without_scores_is_known_before_anything_is_generated(endpoint):
    endpoint.reply = lambda body: chat(counts(1))
    Judge(endpoint.url, "small").prepare()
    Judge(endpoint.url, "small").prepare()
    assert len(endpoint.requests) == 1, "the reply is kept"
    endpoint.reply = lambda body: chat("I cannot.")
    with pytest.raises(EndpointError, match="the judge other gives no score for .*, but: 'I cannot.'"):
        Judge(endpoint.url, "other").prepare()


def test_a_prompt_of_the_user(endpoint, tmp_path):
    (tmp_path / "prompt.txt").write_text('Rate {report} against {reference}. {"score": 0.5}')
    endpoint.reply = lambda body: chat('{"score": 0.5}')
    judge = Judge(endpoint.url, "small", prompt=str(tmp_path / "prompt.txt"), memory=str(tmp_path / "here.jsonl"))
    assert judge(REPORTS[:1], REFERENCES[:1]).tolist() == [0.5]
    assert endpoint.requests[0][2]["messages"][0]["content"] == (
        'Rate Clear lungs. against The lungs are clear.. {"score": 0.5}'
    )
    assert (tmp_path / "here.jsonl").is_file()
    (tmp_path / "prompt.txt").write_text("Rate {report}.")
    with pytest.raises(ArgumentError, match=r"prompt lacks \{reference\}"):
        Judge(endpoint.url, "small", prompt=str(tmp_path / "prompt.txt")).check()
    with pytest.raises(ArgumentError, match="prompt cannot be read"):
        Judge(endpoint.url, "small", prompt=str(tmp_path / "none.txt")).check()


def test_a_reply_without_a_score_does_not_count_and_is_asked_for_again(endpoint):
    endpoint.reply = lambda body: chat("I cannot." if REPORTS[0] in body["messages"][0]["content"] else counts(1))
    with pytest.warns(ZooWarning, match=r"1 of 2 replies of the judge small have no score, as: 'I cannot.'"):
        scores = Judge(endpoint.url, "small")(REPORTS, REFERENCES)
    assert math.isnan(scores[0]) and scores[1] == 1
    endpoint.reply = lambda body: chat(counts(1, missing_finding=1))
    assert Judge(endpoint.url, "small")(REPORTS, REFERENCES).tolist() == [0.5, 1.0] and len(endpoint.requests) == 3
    endpoint.reply = lambda body: chat("I cannot.")
    with pytest.raises(EndpointError, match="2 of 2 replies .* look at its prompt"):
        Judge(endpoint.url, "other")(REPORTS, REFERENCES)


def test_a_judge_that_cannot_be_asked_is_an_error_at_once(endpoint, monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ArgumentError, match="JUDGE_KEY is not set"):
        Judge(endpoint.url, "small", key_variable="JUDGE_KEY").check()
    endpoint.reply = lambda body: chat("", 401)
    with pytest.raises(EndpointError, match="refuses: 401"):
        Judge(endpoint.url, "small")(REPORTS, REFERENCES)


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        (counts(1, a=1, b=2), 0.25),
        ('{"matched_findings": 2, "significant_errors": 2}', 0.5),
        (counts(0), 1.0),
        ('```json\n{"score": 0.25}\n```', 0.25),
        ('{"score": 2}', None),
        ('{"score": true}', None),
        ('{"matched_findings": -1, "significant_errors": {}}', None),
        ('{"matched_findings": "2", "significant_errors": {}}', None),
        ('{"significant_errors": {}}', None),
        ("[]", None),
        ("", None),
    ],
)
def test_scores_of_replies(reply, score):
    assert score_of(reply) == score if score is not None else math.isnan(score_of(reply))


def test_scores_are_floats_of_each_report(endpoint):
    endpoint.reply = lambda body: chat(counts(1, a=2))
    scores = Judge(endpoint.url, "small", requests=2)(["a"] * 5, ["b"] * 5)
    assert scores.shape == (5,) and scores.dtype == torch.float32
