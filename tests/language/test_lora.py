"""LoRA in the language model: which projections, which rows of the vocabulary."""

import pytest
import torch

from tests.tiny_models import causal_lm, llava
from zoo.encoders.clip import SmallClip
from zoo.encoders.vision import ClipVision
from zoo.language.causal_lm import CausalLM
from zoo.language.global_context import CausalContext, GlobalContext
from zoo.language.lora import add_lora
from zoo.language.vision_language import VisionLanguageContext

BLOCK = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def context_of(kind: str, folder) -> GlobalContext:
    if kind == "llava":
        return VisionLanguageContext(str(llava(folder)))
    torch.manual_seed(1)
    sizes = {"width": 64, "layers": 2, "text_width": 32, "text_layers": 2, "embedding": 32}
    vision = ClipVision(SmallClip(image_size=32, patch_size=8, **sizes))
    return CausalContext(vision, CausalLM(str(causal_lm(folder))))


def adapted(context: GlobalContext) -> dict[str, int]:
    """Rank of LoRA by the name of the module."""
    weights = {name: value for name, value in context.lm.named_parameters() if "lora_A" in name}
    return {name.split(".lora_A")[0]: len(value) for name, value in weights.items()}


@pytest.mark.parametrize("kind", ["causal_lm", "llava"])
@pytest.mark.parametrize(("targets", "projections"), [("qv", {"q_proj", "v_proj"}), ("all", BLOCK)])
def test_the_projections_of_every_block_are_adapted_and_no_others(tmp_path, kind, targets, projections):
    context = context_of(kind, tmp_path / "lm")
    blocks = {
        name
        for name, _ in context.lm.named_modules()
        if name.rsplit(".", 1)[-1] in projections and "vision" not in name
    }
    add_lora(context, 3, 6, 0.0, targets)
    assert set(adapted(context)) == blocks and set(adapted(context).values()) == {3}
    assert {name.rsplit(".", 1)[-1] for name in blocks} == projections


@pytest.mark.parametrize("reject", [False, True])
def test_the_rows_of_new_tokens_train_and_no_others(tmp_path, reject):
    context = context_of("causal_lm", tmp_path / "lm")
    if reject:
        context.add_reject_token()
    add_lora(context, 2, 4, 0.0)
    table = context.lm.get_input_embeddings()
    before = table(torch.arange(table.weight.shape[0])).detach().clone()
    trained = [value for name, value in context.lm.named_parameters() if value.requires_grad and "lora" not in name]
    assert [len(value) for value in trained] == [2 if reject else 1]
    ids = torch.tensor([[5, context.seg_token_id, 7, *context.new_token_ids]])
    context.backbone(inputs_embeds=table(ids)).last_hidden_state.square().sum().backward()
    torch.optim.SGD(trained, lr=1.0).step()
    changed = (table(torch.arange(len(before))) != before).any(dim=1).nonzero().flatten().tolist()
    assert changed == sorted(context.new_token_ids) and len(changed) == 1 + reject


def test_all_rows_train_on_demand(tmp_path):
    context = context_of("causal_lm", tmp_path / "lm")
    add_lora(context, 0, 4, 0.0, vocabulary="all")
    assert not adapted(context) and context.lm.get_input_embeddings().weight.requires_grad
