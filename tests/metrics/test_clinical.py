"""Metrics with models of their own: against stand-ins with radeval's interface, and in radeval itself where it is installed."""

import importlib.util
import json
import sys
import types

import pytest
import torch

from tests.metrics import tiny_scorers
from zoo.config.building import check_recipe
from zoo.config.deprecations import RecipeDeprecationWarning
from zoo.config.recipe import RecipeError, read_recipe
from zoo.errors import ArgumentError, MissingWeightsError
from zoo.metrics.clinical import BLANK, TOP_FIVE, build_report_metrics, label_f1, summaries_of
from zoo.metrics.reports import MissingMetricError
from zoo.registry import registry

REFERENCES = ["The heart is enlarged.", "A small left pleural effusion.", "The lungs are clear.", "No effusion."]
REPORTS = ["The heart is not enlarged.", "A small right pleural effusion.", "Clear lungs.", ""]
NAMES = ("radgraph", "chexbert", "green", "ratescore")
RECIPE = """
data: {name: ivl_jsonl, train: a.jsonl, val: a.jsonl, test: a.jsonl}
method: {name: interleaved_reasoning, decoder: {name: anole, source: folder}, report_metrics: [METRIC]}
optimizer: {name: adamw, lr: 1.0e-3}
"""
real = pytest.mark.skipif(
    importlib.util.find_spec("radeval") is None, reason="radeval is not installed (extra clinical)"
)


class Fake:
    """radeval 2.2.1's modules, with the signatures of its source; ``calls`` are what their constructors got."""

    def __init__(self, monkeypatch):
        self.calls = {}
        fake = self

        class F1RadGraph:
            def __init__(self, reward_level, model_type=None, **kwargs):
                folder = kwargs["model_cache_dir"] + "/" + model_type
                with open(folder + "/config.json") as file:
                    fake.calls["radgraph"] = (reward_level, model_type, kwargs["cuda"], json.load(file))

            def __call__(self, refs, hyps):
                return 0.5, [0.25 * len(hyp.split()) for hyp in hyps], refs, hyps

        class GREEN:
            def __init__(self, model_name=None, output_dir=".", cpu=False, num_gpus=None):
                with open(model_name + "/config.json") as file:
                    fake.calls["green"] = (cpu, num_gpus, json.load(file))

            def __call__(self, refs, hyps, on_sample_done=None):
                return (
                    0.5,
                    0.1,
                    [1 / (1 + len(ref)) if hyp else None for ref, hyp in zip(refs, hyps, strict=True)],
                    None,
                )

        class RaTEScore:
            def __init__(
                self,
                bert_model="",
                eval_model="",
                batch_size=1,
                use_gpu=None,
                visualization_path=None,
                affinity_matrix="long",
            ):
                fake.calls["ratescore"] = (bert_model, eval_model, affinity_matrix)

            def compute_score(self, candidate_list, reference_list, on_sample_done=None):
                assert all(len(text) >= BLANK for text in [*candidate_list, *reference_list])
                return [float(a == b) for a, b in zip(candidate_list, reference_list, strict=True)], [], []

        modules = {
            "radeval": {},
            "radeval.metrics": {},
            "radeval.metrics.radgraph": {"F1RadGraph": F1RadGraph},
            "radeval.metrics.green_score": {},
            "radeval.metrics.green_score.green": {"GREEN": GREEN},
            "radeval.metrics.RaTEScore": {},
            "radeval.metrics.RaTEScore.scorer": {"RaTEScore": RaTEScore},
        }
        for name, content in modules.items():
            module = types.ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setitem(sys.modules, "RadEval", sys.modules["radeval"])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def built(name, folder, **options):
    return build_report_metrics([{"name": name, "path": str(folder), **options}])[name]


@pytest.mark.parametrize("archive", [False, True])
def test_radgraph_gets_its_files_from_a_folder(archive, tmp_path, monkeypatch):
    fake = Fake(monkeypatch)
    tiny_scorers.save_radgraph(tmp_path / "radgraph", archive=archive, random_weights=False)
    metric = built("radgraph", tmp_path / "radgraph", reward="complete")
    assert metric(REPORTS, REFERENCES).tolist() == [1.25, 1.25, 0.5, 0.0]
    reward, model, cuda, config = fake.calls["radgraph"]
    assert (reward, model) == ("complete", "radgraph-xl") and cuda == (0 if torch.cuda.is_available() else -1)
    encoder = str(tmp_path / "radgraph" / "encoder")
    assert config["dataset_reader"]["token_indexers"]["bert"]["model_name"] == encoder, "not the hub's"
    assert config["model"]["embedder"]["token_embedders"]["bert"]["model_name"] == encoder
    assert config["model"]["feature_size"] == 4


def test_green_gets_references_first_and_no_code_of_the_model(tmp_path, monkeypatch):
    fake = Fake(monkeypatch)
    tiny_scorers.save_green(tmp_path / "green")
    scores = built("green", tmp_path / "green")(REPORTS, REFERENCES)
    assert scores[:3].tolist() == pytest.approx([1 / (1 + len(text)) for text in REFERENCES[:3]]) and scores[3].isnan()
    cpu, gpus, config = fake.calls["green"]
    assert cpu == (not torch.cuda.is_available()) and gpus == 1 and "auto_map" not in config
    assert config["model_type"] == "llama"


def test_ratescore_of_a_blank_text_is_the_authors_half(tmp_path, monkeypatch):
    fake = Fake(monkeypatch)
    tiny_scorers.save_ratescore(tmp_path / "rate")
    metric = built("ratescore", tmp_path / "rate", matrix="short")
    assert metric(["Clear lungs.", "", "x y z"], ["Clear lungs.", "Clear lungs.", "."]).tolist() == [1.0, 0.5, 0.5]
    assert fake.calls["ratescore"] == (
        str(tmp_path / "rate" / "entities"),
        str(tmp_path / "rate" / "synonyms"),
        "short",
    )


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_is_said_before_reports_are_generated(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "radeval", None)
    tiny_scorers.save_tokenizer(tmp_path / "weights")
    with pytest.raises(MissingMetricError, match=rf"'{name}' needs the package radeval .*medvl-zoo\[clinical\]"):
        built(name, tmp_path / "weights").prepare()
    if name == "chexbert":
        return
    Fake(monkeypatch)
    with pytest.raises(MissingWeightsError, match=f"'{name}' are not complete; missing: .*weights"):
        built(name, tmp_path / "weights").prepare()


def test_f1_of_labels_is_scikit_learns():
    predicted = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0]])
    target = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 0]])
    rows = torch.stack([predicted, target], dim=1)
    assert label_f1(rows, macro=False) == pytest.approx(2 * 2 / (4 + 2))
    assert label_f1(rows, macro=True) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3), "a label that nothing has counts 0"
    summaries = summaries_of("chexbert", build_report_metrics(["chexbert"])["chexbert"])
    wide = torch.zeros(3, 2, 14)
    wide[:, :, 0] = 1
    assert summaries["chexbert_micro_f1_14"](wide) == 1 and summaries["chexbert_micro_f1_5"](wide) == 0


def test_a_mean_leaves_reports_without_a_score_out():
    mean = summaries_of("green", lambda reports, references: torch.zeros(0))["green"]
    assert mean(torch.tensor([0.5, float("nan"), 1.0])) == 0.75


@pytest.mark.parametrize("metric", [*NAMES, "{name: chexbert, path: folder}", "{name: radgraph, reward: simple}"])
def test_a_recipe_chooses_among_the_registered_metrics(metric, tmp_path):
    assert set(registry("metric")) >= {*NAMES, "judge"}
    (tmp_path / "r.yaml").write_text(RECIPE.replace("METRIC", metric))
    check_recipe(read_recipe(tmp_path / "r.yaml"))


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("radgraf", "no metric is named 'radgraf'; did you mean radgraph"),
        ("{name: chexbert, folder: x}", "folder unknown argument for CheXbertF1"),
        ("{name: radgraph, reward: all}", "reward is 'all'"),
        ("{name: judge, model: small}", "endpoint is missing; Judge requires it"),
        ("3", "report_metrics"),
    ],
)
def test_what_is_wrong_with_a_metric_is_reported(metric, message, tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE.replace("METRIC", metric))
    with pytest.raises(RecipeError, match=message):
        check_recipe(read_recipe(tmp_path / "r.yaml"))


def test_metrics_that_do_not_fit_are_errors():
    with pytest.raises(ArgumentError, match="no metric is named 'radgraf'"):
        build_report_metrics(["radgraf"])
    with pytest.raises(ArgumentError, match="'chexbert' is named twice"):
        build_report_metrics(["chexbert", {"name": "chexbert", "path": "x"}])


def test_the_key_of_earlier_versions_is_read_with_a_warning(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE.replace("METRIC", "chexbert").replace("report_metrics", "external_metrics"))
    with pytest.warns(RecipeDeprecationWarning, match="'external_metrics' was renamed to 'report_metrics'"):
        recipe = read_recipe(tmp_path / "r.yaml")
    assert recipe["method"]["report_metrics"] == ["chexbert"]


@real
@pytest.mark.parametrize("archive", [False, True])
def test_radgraph_runs_in_radeval(archive, tmp_path):
    tiny_scorers.save_radgraph(tmp_path / "radgraph", archive=archive)
    metric = built("radgraph", tmp_path / "radgraph")
    scores = metric(REPORTS, REFERENCES)
    assert metric(REFERENCES, REFERENCES).tolist() == [1.0] * 4 and scores[3] == 0
    assert 0 < scores[0] < 1, "random weights annotate other words of other texts"


@real
def test_chexbert_runs_in_radeval(tmp_path):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    tiny_scorers.save_chexbert(tmp_path / "chexbert")
    metric = built("chexbert", tmp_path / "chexbert")
    rows = metric(REPORTS, REFERENCES)
    measured = {name: summary(rows) for name, summary in summaries_of("chexbert", metric).items()}
    assert rows.shape == (4, 2, 14) and 0 < measured["chexbert_micro_f1_14"] < 1
    names = metric._scorer.TARGET_NAMES
    for count, chosen in ((14, range(14)), (5, TOP_FIVE)):
        predicted, target = (rows[:, which][:, list(chosen)].numpy() for which in (0, 1))
        for average in ("micro", "macro"):
            expected = sklearn_metrics.f1_score(target, predicted, average=average, zero_division=0)
            assert measured[f"chexbert_{average}_f1_{count}"] == pytest.approx(expected)
    assert [names[index] for index in TOP_FIVE] == metric._scorer.TOP5


@real
def test_a_checkpoint_with_code_in_it_is_refused(tmp_path):
    tiny_scorers.save_chexbert(tmp_path / "chexbert")
    torch.save({"model_state_dict": types.SimpleNamespace(run=print)}, tmp_path / "chexbert" / "chexbert.pth")
    with pytest.raises(ArgumentError, match=r"chexbert.pth is no checkpoint of tensors"):
        built("chexbert", tmp_path / "chexbert").prepare()


@real
def test_green_runs_in_radeval(tmp_path):
    tiny_scorers.save_green(tmp_path / "green")
    metric = built("green", tmp_path / "green")
    assert metric(REPORTS[:2], REFERENCES[:2]).tolist() == [0.0, 0.0], "random weights match nothing"
    prompt = metric._scorer.dataset["prompt"][0]
    assert prompt.index(REFERENCES[0]) < prompt.index("Candidate Report:") < prompt.index(REPORTS[0])
    reply = "[Clinically Significant Errors]:\n(a) False: 1. x\n\n[Matched Findings]:\n3. a; b; c\n"
    assert metric._scorer.compute_green(reply) == 0.75


@real
def test_ratescore_runs_in_radeval(tmp_path):
    tiny_scorers.save_ratescore(tmp_path / "rate")
    metric = built("ratescore", tmp_path / "rate")
    try:
        metric.prepare()
    except MissingMetricError as error:
        assert "pip install 'spacy>=3.8'" in str(error)
        pytest.skip(str(error))
    assert metric(REFERENCES, REFERENCES).tolist() == pytest.approx([1.0] * 4)
    scores = metric(REPORTS, REFERENCES)
    assert scores[3] == 0.5 and scores[:3].tolist() != [1.0] * 3
