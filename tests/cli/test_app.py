"""The help of every command."""

import pytest
from typer.testing import CliRunner

from zoo.cli.app import app

run = CliRunner()


def call(*arguments: str, code: int = 0) -> str:
    result = run.invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output + result.stderr + repr(result.exception)
    return result.output + result.stderr


def test_the_version_is_printed():
    import zoo

    assert call("--version") == f"medvl-zoo {zoo.__version__}\n"


def test_exit_codes_are_documented_and_usage_is_2():
    assert "Exit codes: 0 done, 1 failed, 2 wrong usage" in " ".join(call("--help").split())
    assert "No such option" in call("list", "--jsn", code=2)
    assert "Missing argument" in call("train", code=2)


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
        "export",
        "app",
        "demo",
    ],
)
def test_every_verb_has_help_with_an_example(verb):
    text = " ".join(call(verb, "--help").split())
    assert "Example" in text and f"zoo {verb}" in text
