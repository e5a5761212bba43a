"""Every method on a device that is not the CPU: a training step, evaluation, prediction; on a fake one, and a real one if any.

A method is a recipe here, and what a step takes is a batch of its data set, moved as a Trainer moves it. What a method makes
on the way it must make on its own device.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.fake_device import KINDS, cuda
from tests.tiny_models import (
    anole,
    biomedclip,
    causal_lm,
    coop_split,
    ivl_traces,
    llava,
    medseg_files,
    openclip_vitb16,
    qwen,
    sam,
)
from zoo.config.recipe import read_recipe
from zoo.engine.assembly import Assembly, assemble

COOP = "{name: coop_split, split_file: FOLDER/coop/split.json, images: FOLDER/coop/images, shots: 2, image_size: 64, batch_size: 3}"
MEDSEG = "{name: medseg_files, train: FOLDER/medseg/data.jsonl, val: FOLDER/medseg/data.jsonl, test: FOLDER/medseg/data.jsonl}"
TRACES = "{name: ivl_jsonl, train: FOLDER/ivl/data.jsonl, val: FOLDER/ivl/data.jsonl, test: FOLDER/ivl/data.jsonl, batch_size: 2}"
SMALL_CLIP = "{name: small_clip, image_size: 32, patch_size: 8, width: 64, layers: 3, text_width: 32, text_layers: 3, embedding: 32}"
CLIPS = {
    "small": SMALL_CLIP,
    "vitb16": "{name: open_clip, model: 'local-dir:FOLDER/vitb16'}",
    "biomedclip": "{name: biomedclip, source: 'local-dir:FOLDER/biomedclip'}",
}
CONTEXTS = {
    "llava": "{name: vision_language_context, source: FOLDER/llava}",
    "qwen": "{name: vision_language_context, source: FOLDER/qwen, family: qwen2_5_vl, image_size: 56}",
    "causal_lm": f"{{name: global_context, vision: {{name: clip_vision, clip: {SMALL_CLIP}}}, model: "
    "{name: causal_lm, source: FOLDER/lm}, merge: 2}",
}
HEADS = {
    "sam": "{name: sam_grounding, source: FOLDER/sam}",
    "unet": "{name: unet_grounding, image_size: 64, channels: [16, 16, 8, 8, 8]}",
}
VQ = "{name: vq_image, resolution: 16, codes: 16, embed_dim: 16, base_channels: 32, channel_multiplier: [1, 1, 1], res_blocks: 1}"
WORDS = (
    "First Next Summarizing I need to analyze the heart left lung bounding box of this area is It There a pleural effusion "
    "clear normal previous analysis will generate following report Left No Write".split()
)
DECODERS = {
    "small": f"{{name: small_interleaved, words: {[*WORDS, *'[],.:', *map(str, range(65))]}, width: 32, layers: 2, heads: 2, "
    f"max_length: 512, tokenizer: {VQ}}}",
    "anole": "{name: anole, source: FOLDER/anole}",
}
ADAPTERS = ["zero_shot", "linear_probe", "coop", "clip_adapter", "tip_adapter", "tip_adapter_f", "maple", "lora"]


def _few_shot(method: str) -> str:
    return f"data: {COOP}\nmethod: {method}\n"


def _medseg(context: str, head: str, more: str = "") -> str:
    options = f"lora_rank: 2, max_new_tokens: 6, context: {CONTEXTS[context]}, grounding: {HEADS[head]}{more}"
    return f"data: {MEDSEG}\nmethod: {{name: medseg_r, {options}}}\n"


def _interleaved(decoder: str, evidence: str, tokens: int, more: str = "") -> str:
    options = f"evidence: {evidence}, max_tokens: {tokens}, max_images: 1, decoder: {DECODERS[decoder]}{more}"
    return f"data: {TRACES}\nmethod: {{name: interleaved_reasoning, {options}}}\n"


USEFORMER = "useformer: {name: useformer, width: 32, depth: 2, queries: 2, synergy: 32}"
RECIPES = {
    **{
        f"nearl_clip {name}": _few_shot(f"{{name: nearl_clip, clip: {clip}, {USEFORMER}}}")
        for name, clip in CLIPS.items()
    },
    "nearl_clip prototype": _few_shot(f"{{name: nearl_clip, interaction: prototype, clip: {SMALL_CLIP}, {USEFORMER}}}"),
    **{
        name: _few_shot(f"{{name: clip_adaptation, clip: {SMALL_CLIP}, adapter: {{name: {name}}}}}")
        for name in ADAPTERS
    },
    "lora biomedclip": _few_shot(f"{{name: clip_adaptation, clip: {CLIPS['biomedclip']}, adapter: {{name: lora}}}}"),
    "medseg_r llava sam": _medseg("llava", "sam"),
    "medseg_r llava sam all rows": _medseg("llava", "sam", ", train_vocabulary: all"),
    "medseg_r qwen sam": _medseg("qwen", "sam"),
    "medseg_r causal_lm unet": _medseg("causal_lm", "unet", ", shared_levels: 2"),
    "interleaved_reasoning small crop": _interleaved("small", "crop", 160),
    "interleaved_reasoning small generated": _interleaved("small", "generated", 160),
    "interleaved_reasoning anole": _interleaved("anole", "generated", 240, ", lora_rank: 2"),
    "finding_unet": f"data: {MEDSEG}\nmethod: {{name: finding_unet, image_size: 64, channels: [16, 16, 8, 8, 8]}}\n",
    "named_grounding": f"data: {MEDSEG}\nmethod: {{name: named_grounding, width: 16, grounding: {HEADS['unet']}}}\n",
    "clip_pretraining": f"data: {COOP}\nmethod: {{name: clip_pretraining, clip: {SMALL_CLIP}}}\n",
    "vq_tokenizer": f"data: {COOP}\nmethod: {{name: vq_tokenizer, tokenizer: {VQ}}}\n",
}
TRAINING_FREE = {"zero_shot", "tip_adapter"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and data of all recipes."""
    root = tmp_path_factory.mktemp("devices")
    for make, name in (
        (openclip_vitb16, "vitb16"),
        (biomedclip, "biomedclip"),
        (llava, "llava"),
        (qwen, "qwen"),
        (causal_lm, "lm"),
        (sam, "sam"),
        (anole, "anole"),
        (coop_split, "coop"),
        (medseg_files, "medseg"),
        (ivl_traces, "ivl"),
    ):
        make(root / name)
    return root


@pytest.fixture(params=list(RECIPES))
def recipe(request: pytest.FixtureRequest) -> str:
    return request.param


def assembled(folder: Path, name: str) -> Assembly:
    """A recipe's method, without a trainer but for what a step asks of one, and its data set."""
    torch.manual_seed(0)
    path = folder / f"{name.replace(' ', '_')}.yaml"
    path.write_text(
        RECIPES[name].replace("FOLDER", str(folder))
        + "optimizer: {name: adamw, lr: 1.0e-3}\ntrainer: {accelerator: cpu}\n"
    )
    made = assemble(read_recipe(path))
    made.method.log = made.method.log_dict = lambda *_, **__: None
    made.method._trainer = stub_trainer(made, torch.device("cpu"))
    made.method.probes = {"dots": [["dots"], ["no dots"]]}  # of pretraining
    return made


def stub_trainer(made: Assembly, device: torch.device) -> SimpleNamespace:
    """What the hooks and steps of a method ask of its trainer."""
    strategy = SimpleNamespace(root_device=device, is_global_zero=True, barrier=lambda name: None)
    facts = {"world_size": 1, "global_rank": 0, "global_step": 0, "estimated_stepping_batches": 4}
    return SimpleNamespace(**facts, precision="32-true", datamodule=made.data, strategy=strategy, should_stop=False)


def batch_of(made: Assembly, split: str, device: torch.device) -> Any:
    """The first batch of a split, moved as Lightning moves it."""
    loader = made.data.train_dataloader() if split == "train" else made.data.eval_dataloader(split)
    batch = next(iter(loader))
    if "label" in batch:  # what pretraining has besides
        labels = batch["label"].tolist()
        batch |= {"text": [f"a film of class {label}" for label in labels], "findings": [["dots"][:n] for n in labels]}
    return made.method.transfer_batch_to_device(batch, device, 0)


def train_and_validate(made: Assembly, device: torch.device) -> None:
    """Two steps on the same batch, since the second may find in a cache what the first put there."""
    trained = [parameter for parameter in made.method.train().parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    for _ in range(2):
        batch = batch_of(made, "train", device)
        made.method.on_train_batch_start(batch, 0)
        loss = made.method.training_step(batch, 0)
        assert loss.device == device and torch.isfinite(loss)
        optimizer.zero_grad()
        loss.backward()
        assert any(parameter.grad is not None for parameter in trained)
        optimizer.step()
    with torch.no_grad():
        made.method.eval().validation_step(batch_of(made, "val", device), 0)
        made.method.on_validation_epoch_end()
    made.method.load_trained_state(made.method.trained_state())
    made.method.base_fingerprint()
    assert all(value.device == device for value in made.method.state_dict().values())


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_validation(folder, recipe, kind):
    """In the order of Lightning: set up on the CPU, moved, begun."""
    made = assembled(folder, recipe)
    with cuda(kind) as device:
        made.method._trainer = stub_trainer(made, device)
        if not recipe.startswith(("clip_pretraining", "vq_tokenizer")):
            made.method.setup("fit")
        made.method.to(device)
        made.method.on_fit_start()
        assert made.method.trainer.should_stop == (recipe in TRAINING_FREE)
        if recipe not in TRAINING_FREE:
            train_and_validate(made, device)


def make_it_draw(method: torch.nn.Module) -> list[torch.Tensor]:
    """Raise the logits of what opens a mask or an image, so that untrained models write some; gives a list of all masks drawn."""
    for model in method.modules():
        layer = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        if layer is None:
            continue
        opening = getattr(model.config, "vocabulary_map", {}).get("<racm3:break>")
        # [SEG] is the last token of the vocabulary but for the image token, which is never written.
        raised = {-2: 1e4, -1: 2e4} if opening is None else {opening: 1e4}
        layer.register_forward_hook(lambda _, __, logits, raised=raised: logits + _bias(logits, raised))
        break
    drawn: list[torch.Tensor] = []
    if hasattr(method, "grounding"):
        method.grounding.register_forward_hook(lambda _, __, masks: drawn.append(masks))
    return drawn


def _bias(logits: torch.Tensor, raised: dict[int, float]) -> torch.Tensor:
    bias = torch.zeros_like(logits)
    for index, value in raised.items():
        bias[..., index] = value
    return bias


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation(folder, recipe, kind):
    made = assembled(folder, recipe)
    drawn = make_it_draw(made.method)
    with cuda(kind) as device:
        made.method.to(device).eval()
        with torch.no_grad():
            outputs = made.method.evaluation_step(batch_of(made, "test", device))
        assert "medseg_r" not in recipe or len(torch.cat(drawn)) > 3
        outputs = made.method.complete_outputs({name: value.cpu() for name, value in outputs.items()})
        for name, metric in made.method.metrics().items():
            assert isinstance(metric(outputs), float), name


@pytest.mark.parametrize("kind", KINDS)
def test_prediction_before_and_after_the_move(folder, tmp_path, recipe, kind):
    """What a method keeps from one call to the next moves with it."""
    made = assembled(folder, recipe)
    made.method.eval()
    make_it_draw(made.method)
    with cuda(kind) as device:
        image = torch.rand(1, 64, 64)
        made.method.predict_image(image)
        made.method.to(device)
        for place in (image, image.to(device)):
            prediction = made.method.predict_image(place)
            assert prediction.save(tmp_path, overwrite=True).is_file()
