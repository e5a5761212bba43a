"""The peers against their authors' code: logits and losses, before and after steps of SGD.

The values in ``golden/peers.safetensors`` were computed with the official repositories (CoOp, BiomedCoOp, TaskRes, LP++,
multimodal-prompt-learning, CLIP-LoRA, Tip-Adapter) on the CLIP, images and prompts below, in float32.
"""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from zoo.adapters.biomedcoop import BiomedCoOp
from zoo.adapters.cocoop import CoCoOp
from zoo.adapters.coop import CoOp
from zoo.adapters.few_shot import ClassPrompts
from zoo.adapters.kgcoop import KgCoOp
from zoo.adapters.lora import LoRA, LowRankUpdate
from zoo.adapters.lp_plus_plus import LPPlusPlus
from zoo.adapters.maple import MaPLe
from zoo.adapters.prograd import ProGrad
from zoo.adapters.taskres import TaskRes
from zoo.adapters.tip_adapter import TipAdapter, TipAdapterF
from zoo.encoders.clip import SmallClip

GOLDEN = load_file(Path(__file__).parent / "golden" / "peers.safetensors")
NAMES = ["no finding", "a small pleural effusion", "a large pneumothorax"]
VIEWS = ("a line", "an opacity", "a shadow", "a lucency", "blunting")
CLASSES = ClassPrompts(
    NAMES, "a chest radiograph showing {}.", {name: [f"{name}, seen as {view}" for view in VIEWS] for name in NAMES}
)
LABELS = torch.tensor([2, 0, 1])
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def random_images(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


IMAGES = random_images(3, 2)


@pytest.fixture
def clip() -> SmallClip:
    sizes = {"width": 64, "layers": 3, "text_width": 32, "text_layers": 3, "embedding": 32}
    return SmallClip(image_size=32, patch_size=8, **sizes).eval().requires_grad_(False)


def check_training(name, adapter, clip, parameters, lr):
    with torch.no_grad():
        torch.testing.assert_close(adapter(clip, IMAGES), GOLDEN[f"{name}.logits"], **CLOSE)
    optimizer = torch.optim.SGD(parameters, lr=lr)
    losses = []
    for _ in GOLDEN[f"{name}.losses"]:
        optimizer.zero_grad()
        loss = adapter.loss(clip, IMAGES, LABELS)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    torch.testing.assert_close(torch.stack(losses), GOLDEN[f"{name}.losses"], **CLOSE)
    with torch.no_grad():
        torch.testing.assert_close(adapter(clip, IMAGES), GOLDEN[f"{name}.after"], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "build", "lr"),
    [
        ("coop", lambda clip: CoOp(clip, CLASSES, context_init="a photo of a"), 0.05),
        ("kgcoop", lambda clip: KgCoOp(clip, CLASSES), 0.05),
        ("prograd", lambda clip: ProGrad(clip, CLASSES), 0.2),
        ("prograd_t2", lambda clip: ProGrad(clip, CLASSES, temperature=2.0, strength=0.5), 0.2),
        ("taskres", lambda clip: TaskRes(clip, CLASSES), 0.5),
        ("biomedcoop", lambda clip: BiomedCoOp(clip, CLASSES), 0.05),
        ("biomedcoop_tau", lambda clip: BiomedCoOp(clip, CLASSES, tau=0.5), 0.05),
    ],
)
def test_trains_as_the_official_code(name, build, lr, clip):
    adapter = build(clip)
    check_training(name, adapter, clip, list(adapter.parameters()), lr)


def test_cocoop_trains_as_the_official_code(clip):
    adapter = CoCoOp(clip, CLASSES)
    names = ("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias")
    with torch.no_grad():
        for parameter, name in zip(adapter.meta_net.parameters(), names, strict=True):
            parameter.copy_(GOLDEN[f"cocoop.meta_net.{name}"])
    check_training("cocoop", adapter, clip, list(adapter.parameters()), 0.05)


@pytest.mark.parametrize(("name", "depth"), [("maple", 2), ("maple_deep", 3)])
def test_maple_trains_as_the_official_code(name, depth, clip):
    adapter = MaPLe(clip, CLASSES, prompt_depth=depth)
    with torch.no_grad():
        adapter.prompts_by_layer[1:] = GOLDEN[f"{name}.deep"]
        for coupling, weight, bias in zip(adapter.couplings, GOLDEN[f"{name}.w"], GOLDEN[f"{name}.b"], strict=True):
            coupling.weight.copy_(weight)
            coupling.bias.copy_(bias)
    check_training(name, adapter, clip, list(adapter.parameters()), 0.01)


def test_lora_trains_as_the_official_code(clip):
    adapter = LoRA(clip, CLASSES, dropout=0.0)
    generator = torch.Generator().manual_seed(11)
    updates = [module for module in clip.model.modules() if isinstance(module, LowRankUpdate)]
    towers = [*clip.model.visual.transformer.resblocks, *clip.model.transformer.resblocks]
    assert {id(update) for update in updates} == {id(block.attn.lora) for block in towers}
    with torch.no_grad():
        for block in towers:
            for a, b in zip(block.attn.lora.lora_a, block.attn.lora.lora_b, strict=True):
                a.copy_(torch.randn(a.shape, generator=generator) * 0.1)
                b.copy_(torch.randn(b.shape, generator=generator) * 0.1)
    parameters = adapter.clip_parameters(clip)
    for parameter in parameters:
        parameter.requires_grad_(True)
    check_training("lora", adapter, clip, parameters, 0.05)


def shots():
    """Nine shots and six further images, three classes in turn."""
    generator = torch.Generator().manual_seed(3)
    train, val = (torch.rand(count, 1, 32, 32, generator=generator) for count in (9, 6))
    return [{"image": train, "label": torch.arange(9) % 3}], [{"image": val, "label": torch.arange(6) % 3}]


def test_lp_plus_plus_fits_as_the_official_code(clip):
    train, _ = shots()
    adapter = LPPlusPlus(clip, CLASSES, iterations=int(GOLDEN["lp_plus_plus.iterations"]))
    # Each image its own validation class, so that accuracy never falls and the last iteration is kept, as in the values.
    adapter.observe(clip, train, [{"image": IMAGES[:1], "label": torch.tensor([99])}])
    torch.testing.assert_close(adapter.alpha[None], GOLDEN["lp_plus_plus.alpha"], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(adapter(clip, IMAGES), GOLDEN["lp_plus_plus.logits_last"], atol=1e-3, rtol=1e-3)


def test_tip_adapter_searches_as_the_official_code(clip):
    train, _ = shots()
    val = [{"image": random_images(24, 4), "label": torch.arange(24) % 3}]
    clip.model.logit_scale.fill_(math.log(100.0))  # of the official code; others scale the grid of alpha
    adapter = TipAdapter(clip, CLASSES, per_class=3)
    adapter.observe(clip, train, val)
    torch.testing.assert_close(adapter.beta, GOLDEN["tip_adapter.beta"], **CLOSE)
    torch.testing.assert_close(adapter.alpha, GOLDEN["tip_adapter.alpha"], **CLOSE)


def test_tip_adapter_f_trains_as_the_official_code(clip):
    train, val = shots()
    adapter = TipAdapterF(clip, CLASSES, per_class=3, search=False)
    adapter.observe(clip, train, val)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2, eps=1e-4)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = adapter.loss(clip, train[0]["image"], train[0]["label"])
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    torch.testing.assert_close(torch.stack(losses), GOLDEN["tip_adapter_f.losses"], **CLOSE)
    with torch.no_grad():
        torch.testing.assert_close(adapter(clip, IMAGES), GOLDEN["tip_adapter_f.after"], atol=2e-4, rtol=1e-3)
