"""How language models are loaded: attention, gradient checkpointing, quantised bases, on tiny files of the real classes."""

import importlib.util
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

import tests.tiny_models as tiny
from tests.tiny_models import anole, causal_lm, llava, sam
from zoo.decoders.interleaved_models import Anole
from zoo.encoders.loading import QuantizationError, local_folder
from zoo.errors import MissingWeightsError, WeightsError
from zoo.heads.sam_grounding import SamGrounding
from zoo.language.causal_lm import CausalLM
from zoo.language.vision_language import VisionLanguageContext
from zoo.methods.medseg_r import MedSegR

WIDTH = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("loading")
    llava(root / "llava", width=WIDTH)
    sam(root / "sam")
    return root


def build_method(folder: Path, **options) -> MedSegR:
    """Tiny LLaVA with LoRA, whose B matrices are not zero, so that A has gradients too."""
    torch.manual_seed(0)
    context = VisionLanguageContext(str(folder / "llava"), **options)
    method = MedSegR(context, partial(SamGrounding, source=str(folder / "sam")), lora_dropout=0.0)
    for name, parameter in method.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return method


def step(method: MedSegR) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss = method.losses(method.example_batch())["loss"]
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in method.named_parameters() if p.grad is not None}


def assert_same_step(one: MedSegR, other: MedSegR, tolerance: float) -> None:
    (loss, gradients), (other_loss, other_gradients) = step(one), step(other)
    torch.testing.assert_close(loss, other_loss, atol=tolerance, rtol=tolerance)
    assert gradients.keys() == other_gradients.keys() and sum("lora_A" in name for name in gradients) == 4
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, other_gradients[name], atol=tolerance, rtol=tolerance, msg=name)


def blocks_run(method: MedSegR) -> int:
    """How often the two transformer blocks begin in a forward and backward pass."""
    calls = []
    for block in method.context.backbone.layers:
        block.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    step(method)
    return len(calls)


def test_gradient_checkpointing_changes_no_loss_and_no_gradient(folder):
    assert_same_step(build_method(folder), build_method(folder, gradient_checkpointing=True), 1e-6)


def test_gradient_checkpointing_computes_each_block_again(folder):
    plain, checkpointed = build_method(folder), build_method(folder, gradient_checkpointing=True)
    assert blocks_run(plain) == 2
    assert blocks_run(checkpointed) == 4
    assert blocks_run(build_method(folder, gradient_checkpointing=True).eval()) == 2


def test_cached_generation_is_not_changed_by_gradient_checkpointing(folder):
    """In training mode too."""
    image = torch.rand(1, 40, 40, generator=torch.Generator().manual_seed(0))
    answers = []
    for options in ({}, {"gradient_checkpointing": True}):
        method = build_method(folder, **options).train()
        answers.append(method.generate([image], [[("Where?", None)]])[0][0])
    assert answers[0].text == answers[1].text and len(answers[0].text) > 0
    torch.testing.assert_close(answers[0].seg_hidden_states, answers[1].seg_hidden_states)


def test_eager_and_sdpa_attention_agree(folder):
    eager, sdpa = build_method(folder, attention="eager"), build_method(folder, attention="sdpa")
    assert eager.context.model.config._attn_implementation == "eager"
    assert_same_step(eager, sdpa, 1e-5)


@pytest.mark.parametrize("load", [CausalLM, Anole])
def test_other_models_take_the_same_arguments(tmp_path, load):
    make = causal_lm if load is CausalLM else anole
    component = load(str(make(tmp_path)), attention="eager", gradient_checkpointing=True)
    model = component.model if load is CausalLM else component.language
    assert model.config._attn_implementation == "eager" and model.is_activation_checkpointing and model.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_anole_keeps_the_precision_that_it_is_stored_in(tmp_path, dtype):
    decoder = Anole(str(anole(tmp_path, dtype=dtype)))
    assert {value.dtype for value in decoder.language.parameters()} == {dtype}


def test_without_bitsandbytes_the_extra_is_named_before_anything_is_loaded(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name))
    for load in (VisionLanguageContext, Anole, CausalLM):
        with pytest.raises(QuantizationError, match=r"pip install 'medvl-zoo\[quantized\]'"):
            load("nobody/nothing", quantization="nf4")


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_base_trains_and_keeps_its_fingerprint(folder, quantization):
    pytest.importorskip("bitsandbytes")
    plain, quantised = build_method(folder), build_method(folder, quantization=quantization)
    held = {name for name, value in quantised.context.named_parameters() if not value.is_floating_point()}
    assert len(held) == 2 * 7 and all("language_model.layers" in name for name in held)
    assert plain.base_fingerprint() == quantised.base_fingerprint() is not None
    quantised.set_base_precision("bf16")
    trained = {value.dtype for value in quantised.parameters() if value.requires_grad}
    assert trained == {torch.float32}
    assert held == {name for name, value in quantised.context.named_parameters() if not value.is_floating_point()}
    with quantised.autocast():
        loss, gradients = step(quantised)
    reference, _ = step(plain)
    torch.testing.assert_close(loss, reference, rtol=0.02, atol=0.0)
    assert sum("lora_A" in name and bool(value.any()) for name, value in gradients.items()) == 4


def test_quantised_anole_keeps_its_image_tokenizer_whole(tmp_path):
    pytest.importorskip("bitsandbytes")
    plain, quantised = (Anole(str(anole(tmp_path)), quantization=kind) for kind in (None, "int8"))
    assert all(value.is_floating_point() for value in quantised.image_tokenizer.parameters())
    assert sum(not value.is_floating_point() for value in quantised.language.parameters()) == 2 * 7
    assert plain.requires_grad_(False).fingerprint() == quantised.requires_grad_(False).fingerprint()


@pytest.mark.parametrize(
    "load",
    [
        lambda folder: SamGrounding(32, str(folder / "llava")),
        lambda folder: VisionLanguageContext(str(folder / "sam")),
        lambda folder: Anole(str(folder / "llava")),
    ],
)
def test_a_folder_of_another_model_is_refused_by_name(folder, load):
    with pytest.raises(WeightsError, match="holds a model of type '(llava|sam)'"):
        load(folder)


@pytest.mark.parametrize("name", ["gpt2", "owner/name"])
def test_names_of_the_hub_are_no_folders(monkeypatch, tmp_path, name):
    """Some repositories, as gpt2, have no owner in their names."""
    import huggingface_hub

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda source, **options: tmp_path / source)
    assert local_folder(name, None) == tmp_path / name
    with pytest.raises(MissingWeightsError, match="there is no folder"):
        local_folder(f"./{name}", None)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / name).mkdir(parents=True)
    assert local_folder(f"~/{name}", None) == tmp_path / name


@pytest.mark.parametrize("kind", ["llava", "qwen", "sam", "anole", "causal_lm"])
def test_a_folder_that_lacks_weights_is_refused(tmp_path, kind):
    """transformers draws missing weights at random, says so in a table, and goes on."""
    folder = tmp_path / kind
    getattr(tiny, kind)(folder)
    load = {
        "llava": lambda: VisionLanguageContext(str(folder)),
        "qwen": lambda: VisionLanguageContext(str(folder), image_size=56),
        "sam": lambda: SamGrounding(32, str(folder)),
        "anole": lambda: Anole(str(folder)),
        "causal_lm": lambda: CausalLM(str(folder)),
    }[kind]
    load()
    file = sorted(folder.glob("*.safetensors"))[0]
    weights = load_file(file)
    lost = next(name for name in sorted(weights) if name.endswith(("q_proj.weight", "qkv.weight")))
    save_file({name: value for name, value in weights.items() if name != lost}, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="lacks 1 weights of a"):
        load()
    save_file({**weights, lost: weights[lost][:-1]}, file, metadata={"format": "pt"})
    with pytest.raises((WeightsError, RuntimeError, ValueError)):
        load()


def test_progress_bars_are_for_terminals(capsys):
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils import logging

    from zoo.encoders.loading import progress_on_terminals

    with progress_on_terminals():
        assert sum(gguf.tqdm([1, 2])) + sum(logging.tqdm([3])) == 6
    assert capsys.readouterr().err == ""
    assert sum(gguf.tqdm([1, 2])) + sum(logging.tqdm([3])) == 6
    assert capsys.readouterr().err != "", "restored"


def test_a_repository_that_cannot_be_downloaded_is_named_with_the_remedy(monkeypatch):
    def offline(*args: object, **options: object) -> None:
        raise LocalEntryNotFoundError("Got: ConnectError\nPlease check your connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(
        MissingWeightsError, match=r"weights of a/b are not here .*ConnectError\); name a folder .*source=FOLDER"
    ):
        local_folder("a/b", None)
