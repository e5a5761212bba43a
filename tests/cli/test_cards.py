"""zoo verify."""

from typer.testing import CliRunner

from zoo.cli.app import app

run = CliRunner()


def call(*arguments: str, code: int = 0) -> str:
    result = run.invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output + result.stderr + repr(result.exception)
    return result.output + result.stderr


def test_verify_fails_where_a_number_does_not_hold(monkeypatch):
    import zoo.engine.verification as verification
    from zoo.cards.schema import CardMetric

    metric = CardMetric(name="accuracy", value=0.9, tolerance=0.01, split="test", n=10, seeds=[0], interval=(0.8, 1.0))
    monkeypatch.setattr(
        verification,
        "verify_all",
        lambda names, settings, device: [verification.CheckedMetric(names[0], metric, 0.5)],
    )
    assert "1 of 1 metrics differ by more than their tolerance" in call("verify", "anything", code=1)
    assert "use --all" in call("verify", code=2)
