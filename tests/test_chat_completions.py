"""Replies of an endpoint on this machine: kept, asked for again where it is busy, and clear errors."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.chat_server import chat, chat_server
from zoo.chat_completions import ChatCompletions, EndpointError, ReplyError, json_in


@pytest.fixture
def endpoint() -> Iterator[Any]:
    with chat_server() as server:
        yield server


def test_a_reply_is_asked_for_once_and_kept(endpoint, tmp_path):
    endpoint.reply = lambda body: chat(f"{len(endpoint.requests)}")
    memory = tmp_path / "new" / "memory.jsonl"
    settings = {"temperature": 0.5, "max_tokens": 7}
    first = ChatCompletions(endpoint.url, "m", memory, settings=settings)
    assert [first.reply("be brief", "a"), first.reply("be brief", "a"), first.reply("", "a")] == ["1", "1", "2"]
    body = endpoint.requests[0][2]
    assert (body["temperature"], body["max_tokens"]) == (0.5, 7)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert [message["role"] for message in endpoint.requests[1][2]["messages"]] == ["user"]
    assert ChatCompletions(endpoint.url, "m", memory, settings=settings).reply("be brief", "a") == "1"
    asked = [
        ChatCompletions(f"{endpoint.url}/", "m", memory, settings=settings),
        ChatCompletions(endpoint.url, "other", memory, settings=settings),
        ChatCompletions(endpoint.url, "m", memory),
    ]
    assert [other.reply("be brief", "a") for other in asked] == ["3", "4", "5"], "another server, model or sampling"


def test_a_reply_that_is_not_worth_keeping_is_asked_for_again(endpoint, tmp_path):
    endpoint.reply = lambda body: chat("no" if len(endpoint.requests) == 1 else "yes")
    asker = ChatCompletions(endpoint.url, "m", tmp_path / "memory.jsonl")
    assert [asker.reply("", "a", keep=lambda reply: reply == "yes") for _ in range(3)] == ["no", "yes", "yes"]
    assert len((tmp_path / "memory.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("code", [429, 503])
def test_a_busy_endpoint_is_asked_again_after_what_it_says(endpoint, tmp_path, code):
    endpoint.headers["Retry-After"] = "0.5"
    endpoint.reply = lambda body: chat("at last", 200 if len(endpoint.requests) > 1 else code)
    start = time.monotonic()
    assert ChatCompletions(endpoint.url, "m", tmp_path / "memory.jsonl").reply("", "a") == "at last"
    assert len(endpoint.requests) == 2 and time.monotonic() - start >= 0.5


def test_retries_and_timeout_have_limits(endpoint, tmp_path):
    endpoint.reply = lambda body: chat("", 500)
    with pytest.raises(EndpointError, match="refuses: 500"):
        ChatCompletions(endpoint.url, "m", tmp_path / "memory.jsonl", retries=1).reply("", "a")
    assert len(endpoint.requests) == 2
    endpoint.reply = lambda body: (time.sleep(0.6), chat("late"))[1]
    with pytest.raises(EndpointError, match="does not answer within 0.2 s"):
        ChatCompletions(endpoint.url, "m", tmp_path / "memory.jsonl", timeout=0.2, retries=0).reply("", "a")


def test_several_threads_may_ask(endpoint, tmp_path):
    endpoint.reply = lambda body: chat(body["messages"][0]["content"].upper() * 50)
    asker = ChatCompletions(endpoint.url, "m", tmp_path / "memory.jsonl")
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda text: asker.reply("", text), "abcdefghij"))
    assert replies == [letter * 50 for letter in "ABCDEFGHIJ"]
    lines = (tmp_path / "memory.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["reply"][0] for line in lines) == list("ABCDEFGHIJ")


def test_json_is_found_in_a_reply():
    assert json_in('Sure: {"score": 1} I hope.') == {"score": 1}
    for reply in ("none", "{", "{no}", "}{", '{"a":' * 100_000 + "}"):
        with pytest.raises(ReplyError, match="no JSON object in"):
            json_in(reply)
