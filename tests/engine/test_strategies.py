"""ddp, FSDP2 and ZeRO on two processes train what one process trains, and write what it writes."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from safetensors.torch import load_file

from tests.engine.two_processes import losses_of, metrics_of, together
from tests.tiny_models import anole, coop_split, ivl_traces, llava, medseg_files, openclip_vitb16, sam
from zoo.config.recipe import read_recipe
from zoo.engine import strategies
from zoo.engine.assembly import assemble
from zoo.engine.strategies import FSDP2Strategy, StrategyError, check_strategy
from zoo.engine.training import RunError, last_checkpoint
from zoo.methods.sharding import sharded_parameters, transformer_blocks

TRAINER = "{max_epochs: 2, enable_progress_bar: false, accelerator: cpu, gradient_clip_val: 0.5}"
REST = f"optimizer: {{name: adamw, lr: 3.0e-3}}\nscheduler: {{name: cosine, warmup_steps: 2}}\ntrainer: {TRAINER}\n"
NEARL = """
data: {{name: coop_split, split_file: {0}/split.json, images: {0}/images, batch_size: 1}}
method:
  name: nearl_clip
  clip: {{name: open_clip, model: "local-dir:{0}/clip"}}
  useformer: {{name: useformer, width: 32, depth: 2, queries: 2, synergy: 32}}
  adapter: {{name: oca, rank: 4}}
"""
MEDSEG = """
data: {{name: medseg_files, train: {0}/data.jsonl, val: {0}/data.jsonl, test: {0}/test.jsonl, batch_size: 1}}
method:
  name: medseg_r
  lora_rank: 4
  lora_dropout: 0.0
  max_new_tokens: 8
  context: {{name: vision_language_context, source: {0}/llava}}
  grounding: {{name: sam_grounding, source: {0}/sam}}
"""
INTERLEAVED = """
data: {{name: ivl_jsonl, train: {0}/data.jsonl, val: {0}/data.jsonl, test: {0}/data.jsonl, batch_size: 1}}
method:
  name: interleaved_reasoning
  max_tokens: 640
  lora_rank: 4
  lora_dropout: 0.0
  decoder: {{name: anole, source: {0}/anole}}
"""
TWO = ["trainer.devices=2"]
MEASURED = {"nearl": 9, "medseg": 10}
"""Questions of the test split, an uneven number of samples for two processes."""
STRATEGIES = ("ddp", "fsdp2")


def write_nearl(root: Path) -> str:
    coop_split(root)
    openclip_vitb16(root / "clip")
    return NEARL


def write_medseg(root: Path) -> str:
    """Eight conversations to train on; seven to measure, every third with a second question."""
    medseg_files(root, count=8)
    records = [json.loads(line) for line in (root / "data.jsonl").read_text().splitlines()][:7]
    for record in records[::3]:
        record.update({key: value * 2 for key, value in record.items() if isinstance(value, list)})
    (root / "test.jsonl").write_text("\n".join(map(json.dumps, records)))
    llava(root / "llava", dtype=torch.bfloat16)
    sam(root / "sam")
    return MEDSEG


def write_interleaved(root: Path) -> str:
    """Traces of one length: the mean over the tokens of two is the mean of their means."""
    ivl_traces(root, count=16)
    lines = (root / "data.jsonl").read_text().splitlines()
    (root / "data.jsonl").write_text("\n".join(lines[::2]))
    anole(root / "anole")
    return INTERLEAVED


METHODS = {"nearl": write_nearl, "medseg": write_medseg, "interleaved": write_interleaved}


def means(first: list[float], second: list[float]) -> list[float]:
    return [sum(pair) / 2 for pair in zip(first, second, strict=True)]


def assert_same_weights(one: Path, two: Path, tolerance: float) -> None:
    one, two = (load_file(run / "model.safetensors") for run in (one, two))
    assert {k: (v.shape, v.dtype) for k, v in one.items()} == {k: (v.shape, v.dtype) for k, v in two.items()}
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def recipes(tmp_path_factory) -> dict[str, Path]:
    paths = {}
    for name, write in METHODS.items():
        root = tmp_path_factory.mktemp(name)
        paths[name] = root / "recipe.yaml"
        paths[name].write_text(write(root).format(root) + REST)
    return paths


@pytest.fixture(scope="module")
def runs(recipes, tmp_path_factory):
    """Losses and run folder of each method by one process (two batches a step), and under each strategy by two."""
    root = tmp_path_factory.mktemp("runs")
    losses, jobs = {}, []
    for name, recipe in recipes.items():
        alone = losses_of(str(recipe), str(root / name / "one"), ["trainer.accumulate_grad_batches=2"])
        losses[name, "one"] = means(alone[::2], alone[1::2])
        for strategy in STRATEGIES:
            settings = [*TWO, f"trainer.strategy={strategy}"]
            jobs.append(
                {"job": "train", "recipe": str(recipe), "out": str(root / name / strategy), "settings": settings}
            )
    for name in MEASURED:
        settings = [*TWO, "trainer.strategy=ddp", "data.eval_batch_size=2"][: 3 if name == "medseg" else 2]
        jobs.append({"job": "eval", "run": str(root / name / "one"), "settings": settings})
    jobs[-len(MEASURED) - 1]["at_step"] = {"copy": 5}
    results = iter(zip(*together(jobs, root), strict=True))
    for name in recipes:
        for strategy in STRATEGIES:
            losses[name, strategy] = means(*next(results))
    return losses, root, dict(zip(MEASURED, results, strict=True))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", list(METHODS))
def test_two_processes_train_what_one_trains(runs, name, strategy):
    losses, root, _ = runs
    assert len(losses[name, "one"]) > 5
    assert losses[name, strategy] == pytest.approx(losses[name, "one"], abs=1e-4)
    assert_same_weights(root / name / "one", root / name / strategy, 1e-3)
    summaries = [json.loads((root / name / run / "summary.json").read_text()) for run in ("one", strategy)]
    assert summaries[0]["base_fingerprint"] == summaries[1]["base_fingerprint"]


@pytest.mark.parametrize(("name", "count"), MEASURED.items())
def test_two_processes_measure_each_sample_once(runs, name, count):
    _, root, measured = runs
    one = metrics_of(str(root / name / "one"), [])
    assert all(n == count for *_, n in one.values())
    for two in measured[name]:
        assert two.keys() == one.keys()
        for metric, values in one.items():
            assert two[metric] == pytest.approx(values, abs=1e-5, nan_ok=True), metric


def test_a_killed_fsdp2_run_resumes_to_what_it_would_have_been(recipes, tmp_path):
    """Dropout draws from each process's own random state; the checkpoint is from the middle of an epoch of four steps."""
    recipe, settings = str(recipes["interleaved"]), [*TWO, "trainer.strategy=fsdp2", "method.lora_dropout=0.5"]
    job = {"job": "train", "recipe": recipe, "settings": settings, "checkpoint_every": 3}
    killed, whole = str(tmp_path / "killed"), str(tmp_path / "whole")
    together([{**job, "out": whole}, {**job, "out": killed, "at_step": {"kill": 4}}], tmp_path, killed=True)
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    assert torch.load(tmp_path / "killed" / "checkpoints" / "last.ckpt")["global_step"] == 3
    for resumed, *_ in together([{**job, "out": killed, "resume": True}], tmp_path):
        assert len(resumed) == 5
    assert_same_weights(Path(whole), Path(killed), 0)


def test_one_process_goes_on_with_what_two_began(runs, recipes):
    losses, root, _ = runs
    run = root / "interleaved" / "fsdp2-copy"
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 4 and not any(
        name.endswith("q_proj.weight") for name in checkpoint["state_dict"]
    )
    alone = losses_of(str(recipes["interleaved"]), str(run), ["trainer.accumulate_grad_batches=2"], resume=True)
    assert means(alone[::2], alone[1::2]) == pytest.approx(losses["interleaved", "one"][4:], abs=1e-4)


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not here")
def test_zero_trains_what_one_process_trains_and_resumes(runs, recipes, tmp_path, monkeypatch):
    """ZeRO-2 whole, ZeRO-3 killed and resumed."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    losses, root, _ = runs
    stages = (2, 3)
    jobs = [
        {
            "job": "train",
            "recipe": str(recipes["interleaved"]),
            "out": str(tmp_path / f"zero{stage}"),
            "settings": [*TWO, f"trainer.strategy=deepspeed_stage_{stage}"],
            "checkpoint_every": 3,
        }
        for stage in stages
    ]
    together([{**jobs[-1], "at_step": {"kill": 4}}], tmp_path, killed=True)
    jobs[-1]["resume"] = True
    for stage, pair in zip(stages, zip(*together(jobs, tmp_path), strict=True), strict=True):
        expected = losses["interleaved", "one"][3 if stage == 3 else 0 :]
        assert means(*pair) == pytest.approx(expected, abs=1e-4), stage
        assert_same_weights(root / "interleaved" / "one", tmp_path / f"zero{stage}", 1e-3)
    assert (tmp_path / "zero3" / "checkpoints" / "last.ckpt").is_dir()


def test_a_folder_is_a_checkpoint(tmp_path):
    with pytest.raises(RunError, match="no checkpoint to resume from"):
        last_checkpoint(tmp_path)
    folder = tmp_path / "checkpoints" / "last.ckpt"
    folder.mkdir(parents=True)
    assert last_checkpoint(tmp_path) == folder


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("trainer.strategy=deepspeed_stage_2", "needs DeepSpeed: pip install"),
        ("trainer.strategy=deepspeed_stage_2 method.name=medseg_r", "medseg_r does not support DeepSpeed"),
        ("trainer.strategy=deepspeed_stage_2 trainer.precision=16-mixed", "does not support precision 16-mixed"),
        ("trainer.strategy=fsdp2 trainer.precision=16-mixed", "does not support precision 16-mixed"),
        ("trainer.strategy=fsdp_cpu_offload", "is FSDP1"),
        ("trainer.strategy=ddpp", "unknown strategy 'ddpp'; did you mean ddp"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_built(settings, message, monkeypatch):
    """The data and weights of this recipe are not here."""
    monkeypatch.setattr(strategies, "find_spec", lambda name: None)
    recipe = read_recipe("interleaved_reasoning/anole_7b", settings.split())
    with pytest.raises(StrategyError, match=message):
        check_strategy(recipe)


def test_fsdp2_refuses_to_predict(recipes):
    assembly = assemble(read_recipe(recipes["nearl"]))
    trainer = Trainer(strategy=FSDP2Strategy(), accelerator="cpu", devices=1, logger=False)
    with pytest.raises(StrategyError, match="fsdp2 trains; test and predict with"):
        trainer.test(assembly.method, datamodule=assembly.data)


@pytest.mark.parametrize(("name", "blocks"), [("nearl", 6), ("medseg", 2), ("interleaved", 2)])
def test_blocks_and_whatever_trains_are_divided(recipes, name, blocks):
    """CLIP's image and text layers; of the others the language model's layers, and no image encoder."""
    method = assemble(read_recipe(recipes[name])).method
    repeated = transformer_blocks(method.sharded_modules())
    assert len(repeated) == blocks
    divided = {id(parameter) for parameter in sharded_parameters(method, method.sharded_modules())}
    assert all(id(parameter) in divided for block in repeated for parameter in block.parameters())
    assert all(id(parameter) in divided for parameter in method.parameters() if parameter.requires_grad)
    frozen = sum(parameter.numel() for parameter in method.parameters() if id(parameter) not in divided)
    assert 0 < frozen < sum(parameter.numel() for parameter in method.parameters())
