"""The help of every command."""

import pytest
from typer.testing import CliRunner

from zoo.cli.app import app

run = CliRunner()


def call(*arguments: str, code: int = 0) -> str:
    result = run.invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output + result.stderr + repr(result.exception)
    return result.output + result.stderr


@pytest.mark.parametrize(
    "verb",
    [
        "list",
        "show",
        "check",
        "plan",
        "train",
        "eval",
        "compare",
        "predict",
        "publish",
        "verify",
        "push",
        "pull",
        "demo",
    ],
)
def test_every_verb_has_help_with_an_example(verb):
    text = " ".join(call(verb, "--help").split())
    assert "Example" in text and f"zoo {verb}" in text
