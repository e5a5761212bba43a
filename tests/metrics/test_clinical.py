"""Metrics with packages of their own, which a recipe chooses by name; the packages are replaced by stand-ins here."""

import sys
import types

import pytest

from zoo.config.building import check_recipe
from zoo.config.recipe import RecipeError, read_recipe
from zoo.metrics.clinical import build_report_metric
from zoo.metrics.reports import MissingMetricError
from zoo.registry import UnknownComponentError, registry

REFERENCES = ["The heart is enlarged.", "A small left pleural effusion.", "The lungs are clear."]
REPORTS = ["The heart is not enlarged.", "A small right pleural effusion.", "Clear lungs."]
RECIPE = """
data: {name: ivl_jsonl, train: a.jsonl, val: a.jsonl, test: a.jsonl}
method: {name: interleaved_reasoning, decoder: {name: anole, source: folder}, external_metrics: [NAME]}
optimizer: {name: adamw, lr: 1.0e-3}
"""


@pytest.mark.parametrize(("name", "package"), [("radgraph", "radgraph"), ("chexbert", "f1chexbert")])
def test_a_missing_package_is_reported_when_it_is_needed(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    metric = build_report_metric(name)
    with pytest.raises(MissingMetricError, match=f"pip install {package}"):
        metric(REPORTS, REFERENCES)


def test_radgraph_is_called_with_partial_reward_and_loaded_once(monkeypatch):
    calls = []

    class Scorer:
        def __init__(self, reward_level):
            calls.append(reward_level)

        def __call__(self, hyps, refs):
            calls.append((hyps, refs))
            return 0.5, [0.25, 0.5, 0.75], None, None

    monkeypatch.setitem(sys.modules, "radgraph", types.SimpleNamespace(F1RadGraph=Scorer))
    metric = build_report_metric("radgraph")
    for _ in range(2):
        assert metric(REPORTS, REFERENCES).tolist() == [0.25, 0.5, 0.75]
    assert calls == ["partial", (REPORTS, REFERENCES), (REPORTS, REFERENCES)]


def test_chexbert_is_the_f1_of_each_report(monkeypatch):
    labels = {
        text: [int("heart" in text), int("effusion" in text), int("left" in text)] for text in REPORTS + REFERENCES
    }
    scorer = types.SimpleNamespace(get_label=labels.__getitem__)
    monkeypatch.setitem(sys.modules, "f1chexbert", types.SimpleNamespace(F1CheXbert=lambda: scorer))
    scores = build_report_metric("chexbert")(REPORTS, REFERENCES)
    assert scores.tolist() == pytest.approx([1.0, 2 / 3, 1.0])


def test_a_recipe_chooses_among_the_registered_metrics(tmp_path):
    assert set(registry("metric")) >= {"radgraph", "chexbert"}
    for name in ("radgraph", "chexbert"):
        (tmp_path / "r.yaml").write_text(RECIPE.replace("NAME", name))
        check_recipe(read_recipe(tmp_path / "r.yaml"))
    (tmp_path / "r.yaml").write_text(RECIPE.replace("NAME", "radgraf"))
    with pytest.raises(RecipeError, match="no metric is named 'radgraf'; did you mean radgraph"):
        check_recipe(read_recipe(tmp_path / "r.yaml"))
    with pytest.raises(UnknownComponentError, match="radgraf"):
        build_report_metric("radgraf")
