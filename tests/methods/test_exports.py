"""Language models with LoRA merged are read by transformers, and give what the method gave."""

import pytest
import torch

from tests.tiny_models import anole, llava
from zoo.decoders.interleaved_models import Anole
from zoo.errors import UnsupportedError
from zoo.language.vision_language import VisionLanguageContext
from zoo.methods.interleaved_reasoning import InterleavedReasoning


def _with_random_lora(model: torch.nn.Module) -> None:
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "trainable_tokens_delta" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)


@torch.no_grad()
@pytest.mark.parametrize("vocabulary", ["new", "all"])
def test_a_merged_language_model_is_one_of_transformers(tmp_path, vocabulary):
    from safetensors.torch import load_file
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    from zoo.heads.unet_grounding import UnetGrounding
    from zoo.methods.medseg_r import MedSegR

    def head(language_width: int) -> UnetGrounding:
        return UnetGrounding(language_width, image_size=64, channels=[16, 16, 8, 8, 8])

    context = VisionLanguageContext(str(llava(tmp_path / "llava")))
    method = MedSegR(context, head, lora_rank=2, train_vocabulary=vocabulary).eval()
    _with_random_lora(method)
    ids = torch.randint(5, 60, (1, 7))
    before = context.logits(context.hidden_states(ids, []))
    trained = method.trained_state()
    method.save_merged(tmp_path / "merged")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(model(input_ids=ids).logits, before.to(model.dtype), atol=1e-2, rtol=1e-2)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "merged")) == len(context.tokenizer)
    others = load_file(tmp_path / "merged" / "method.safetensors")
    assert others and all(torch.equal(trained[name], value) for name, value in others.items())
    assert all(name.startswith(("grounding.", "context.")) for name in others)


@torch.no_grad()
def test_a_merged_interleaved_decoder_is_read_again(tmp_path):
    decoder = Anole(str(anole(tmp_path / "anole")))
    method = InterleavedReasoning(decoder, lora_rank=2).eval()
    _with_random_lora(method)
    ids = torch.randint(5, 60, (1, 7))
    before = decoder.language(input_ids=ids).logits
    method.save_merged(tmp_path / "merged")
    again = Anole(str(tmp_path / "merged")).language.eval()
    torch.testing.assert_close(again(input_ids=ids).logits, before, atol=1e-4, rtol=1e-4)


def test_without_lora_nothing_is_merged(tmp_path):
    method = InterleavedReasoning(Anole(str(anole(tmp_path / "anole"))))
    with pytest.raises(UnsupportedError, match="without LoRA"):
        method.save_merged(tmp_path / "merged")
