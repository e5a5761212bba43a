"""Turns reworded by an endpoint on this machine, which replies as it is told."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.chat_server import chat, chat_server
from zoo.chat_completions import EndpointError
from zoo.data.conversations.records import Target, Turn
from zoo.engine.rewriting import Rewriter, fits
from zoo.errors import ArgumentError

TURN = Turn(
    "Where is the effusion?", "It is [SEG].", ({"size": [8, 8], "counts": "x"},), (Target("effusion"),), "explicit"
)


@pytest.fixture
def endpoint() -> Iterator[Any]:
    with chat_server() as server:
        yield server


def test_a_turn_gets_other_words_and_keeps_its_mask(endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    endpoint.reply = lambda body: chat('Here: {"question": "Show the fluid.", "answer": "The fluid is [SEG]."}')
    rewriter = Rewriter(endpoint.url, "small", tmp_path / "memory.jsonl", "MY_KEY")
    reworded = rewriter.rewrite(TURN)
    assert (reworded.question, reworded.answer) == ("Show the fluid.", "The fluid is [SEG].") and rewriter.kept == 0
    assert reworded.masks == TURN.masks and reworded.targets == TURN.targets
    path, headers, body = endpoint.requests[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret" and body["model"] == "small"
    assert "secret" not in (tmp_path / "memory.jsonl").read_text()


def test_what_was_reworded_is_not_asked_again(endpoint, tmp_path):
    endpoint.reply = lambda body: chat('{"question": "Show it.", "answer": "[SEG]"}')
    first = Rewriter(endpoint.url, "small", tmp_path / "memory.jsonl").rewrite(TURN)
    again = Rewriter(endpoint.url, "small", tmp_path / "memory.jsonl").rewrite(TURN)
    assert first == again and len(endpoint.requests) == 1 and "Authorization" not in endpoint.requests[0][1]
    (tmp_path / "memory.jsonl").write_text("no json")
    with pytest.raises(ArgumentError, match="line 1: is no reply that was kept"):
        Rewriter(endpoint.url, "small", tmp_path / "memory.jsonl")


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        '{"question": "Show it."}',
        '{"question": "", "answer": "[SEG]"}',
        '{"question": "Show.", "answer": "no mask"}',
        '{"question": 3, "answer": 4}',
    ],
)
def test_a_reply_that_does_not_fit_leaves_the_words(endpoint, tmp_path, text):
    endpoint.reply = lambda body: chat(text)
    rewriter = Rewriter(endpoint.url, "small", tmp_path / "memory.jsonl")
    assert rewriter.rewrite(TURN) == TURN and rewriter.kept == 1


def test_an_implicit_question_must_not_name_its_target():
    implicit = Turn("What should be drained?", "It is [SEG].", TURN.masks, TURN.targets, "implicit")
    assert not fits(implicit, Turn("Where is the effusion?", "[SEG]", TURN.masks, TURN.targets, "implicit"))
    assert fits(implicit, Turn("What holds fluid?", "[SEG]", TURN.masks, TURN.targets, "implicit"))


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((401, b"{}"), "refuses: 401"),
        ((503, b"{}"), "refuses: 503"),
        ((200, b"<html>"), "does not reply with JSON"),
        ((200, b'{"error": "x"}'), "the reply is not OpenAI's"),
    ],
)
def test_an_endpoint_that_fails_is_an_error(endpoint, tmp_path, reply, message):
    endpoint.reply = lambda body: reply
    with pytest.raises(EndpointError, match=message):
        Rewriter(endpoint.url, "small", tmp_path / "memory.jsonl").rewrite(TURN)
    assert len(endpoint.requests) == (3 if reply[0] == 503 else 1)


def test_no_endpoint_and_no_key_are_errors(tmp_path, monkeypatch):
    with pytest.raises(EndpointError, match="cannot be reached"):
        Rewriter("http://127.0.0.1:9/v1", "small", tmp_path / "memory.jsonl").rewrite(TURN)
    with pytest.raises(ArgumentError, match="expected an address such as"):
        Rewriter("file:///etc/passwd", "small", tmp_path / "memory.jsonl")
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ArgumentError, match="MY_KEY is not set"):
        Rewriter("http://localhost:1", "small", tmp_path / "memory.jsonl", "MY_KEY")
