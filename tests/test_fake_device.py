"""The fake CUDA device refuses what a real one refuses, and lets clean code pass with the values of the CPU.

Every case runs on a real GPU too, where there is one: the fake is right where both agree.
"""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from tests.fake_device import CUDA, KINDS, cuda, fake_cuda, is_marked
from tests.tiny_models import causal_lm, llava, qwen, sam

SAME_DEVICE = "same device|indices should be either on cpu|weight type .* should be the same"


def on(*shape: int) -> torch.Tensor:
    return torch.rand(shape, device=CUDA)


FAULTS = {
    "a mask made on the CPU": lambda: on(2, 3) + torch.ones(2, 3),
    "an attention mask made on the CPU": lambda: functional.scaled_dot_product_attention(
        *[on(1, 2, 3, 4)] * 3, attn_mask=torch.ones(3, 3)
    ),
    "arange without a device in index_add": lambda: on(4, 2).index_add(0, torch.arange(2), on(2, 2)),
    "arange without a device in index_select": lambda: on(4, 2).index_select(0, torch.arange(2)),
    "ids on the CPU in an embedding on the GPU": lambda: functional.embedding(
        torch.zeros(2, dtype=torch.long), on(4, 2)
    ),
    "an image on the CPU in a convolution": lambda: nn.Conv2d(3, 2, 3, device=CUDA)(torch.rand(1, 3, 8, 8)),
    "a weight left on the CPU": lambda: functional.linear(on(2, 3), torch.rand(4, 3)),
    "labels on the CPU": lambda: functional.cross_entropy(on(2, 3), torch.zeros(2, dtype=torch.long)),
    "a true mask on the CPU": lambda: functional.binary_cross_entropy_with_logits(on(2, 3), torch.ones(2, 3)),
    "cat": lambda: torch.cat([on(2), torch.zeros(2)]),
    "stack of numbers": lambda: torch.stack([on(2).sum(), torch.zeros(())]),
    "masked_fill": lambda: on(3).masked_fill(torch.ones(3, dtype=torch.bool), 0.0),
    "masked_scatter": lambda: on(3).masked_scatter(torch.ones(3, dtype=torch.bool, device=CUDA), torch.zeros(3)),
    "where": lambda: torch.where(torch.ones(3, dtype=torch.bool), on(3), on(3)),
    "in place": lambda: on(3).add_(torch.ones(3)),
    "in place, the other way": lambda: torch.ones(3).add_(on(3)),
    "a number on the GPU in a tensor on the CPU": lambda: torch.ones(3) + on(3).sum(),
    "indices on the GPU in a tensor on the CPU": lambda: torch.ones(3)[torch.zeros(2, dtype=torch.long, device=CUDA)],
    "values on the CPU put by index": lambda: on(3).index_put((torch.tensor([0, 1]),), torch.ones(2)),
    "values on the CPU set by a mask": lambda: on(3).__setitem__(torch.ones(3, dtype=torch.bool), torch.ones(3)),
    "a gradient from the CPU": lambda: setattr(on(3).requires_grad_(), "grad", torch.ones(3)),
    "equal": lambda: torch.equal(on(3), torch.ones(3)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", list(FAULTS))
def test_operands_on_both_devices_are_refused(kind, fault):
    """Some kernels of a real GPU have a wording of their own."""
    with cuda(kind), pytest.raises(RuntimeError, match=SAME_DEVICE if kind == "fake" else None):
        FAULTS[fault]()


@pytest.mark.parametrize("kind", KINDS)
def test_numpy_is_refused(kind):
    with cuda(kind) as device:
        for convert in (lambda t: t.numpy(), np.asarray):
            with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
                convert(torch.ones(3, device=device))
        assert torch.ones(3, device=device).cpu().numpy().tolist() == [1.0] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_of_the_other_device_is_refused(kind):
    with cuda(kind) as device:
        of_cpu, of_gpu = torch.Generator(), torch.Generator(device=device)
        assert of_gpu.device == device and of_cpu.device.type == "cpu"
        with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator but found 'cpu'"):
            torch.rand(3, device=device, generator=of_cpu)
        with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator but found 'cpu'"):
            torch.multinomial(torch.ones(3, device=device), 1, generator=of_cpu)
        with pytest.raises(RuntimeError, match="Expected a 'cpu' device type for generator but found 'cuda'"):
            torch.randperm(3, generator=of_gpu)
        draws = [torch.rand(3, device=device, generator=of_gpu.manual_seed(5)) for _ in range(2)]
        assert torch.equal(*draws) and torch.rand(3, generator=of_cpu).device.type == "cpu"


PLACES = {
    "a factory": (lambda: torch.zeros(3, device=CUDA), True),
    "a factory by name": (lambda: torch.arange(3, device="cuda"), True),
    "a factory by index": (lambda: torch.ones(3, device=0), True),
    "a factory without a device": (lambda: torch.zeros(3), False),
    "a factory inside a device": (lambda: _inside(torch.zeros), True),
    "a layer inside a device": (lambda: nn.Linear(2, 2, device=CUDA).weight, True),
    "torch.tensor": (lambda: torch.tensor([1, 2], device=CUDA), True),
    "torch.tensor of numbers on the GPU": (lambda: torch.tensor([on(2).sum(), 1.0]), False),
    "as_tensor, moved": (lambda: torch.as_tensor(torch.ones(2), device=CUDA), True),
    "like": (lambda: torch.zeros_like(on(2)), True),
    "like, elsewhere": (lambda: torch.zeros_like(on(2), device="cpu"), False),
    "new": (lambda: on(2).new_zeros(3), True),
    "a view": (lambda: on(4)[1:].view(3, 1), True),
    "detached": (lambda: on(2).requires_grad_().detach(), True),
    "data": (lambda: on(2).requires_grad_().data, True),
    "a parameter": (lambda: nn.Parameter(on(2)), True),
    "to a device": (lambda: torch.ones(2).to(CUDA), True),
    "to a device and type": (lambda: torch.ones(2).to("cuda", torch.float16), True),
    "to a type": (lambda: on(2).to(torch.float16), True),
    "to another tensor's": (lambda: torch.ones(2).to(on(1)), True),
    "to another tensor's, back": (lambda: on(2).to(torch.ones(1)), False),
    "type_as": (lambda: torch.ones(2).type_as(on(1)), True),
    "cuda": (lambda: torch.ones(2).cuda(), True),
    "cpu": (lambda: on(2).cpu(), False),
    "indices on the CPU": (lambda: on(4)[torch.tensor([0, 2])], True),
    "a mask on the CPU": (lambda: on(4)[torch.tensor([True, False, True, False])], True),
    "a number on the CPU": (lambda: on(2) * torch.tensor(2.0), True),
    "a number on the GPU as an index": (lambda: torch.ones(3)[torch.tensor(1, device=CUDA)], False),
    "copied to": (lambda: torch.zeros(2, device=CUDA).copy_(torch.ones(2)), True),
    "copied from": (lambda: torch.zeros(2).copy_(on(2)), False),
    "expanded as": (lambda: torch.zeros(2).expand_as(on(3, 2)), False),
    "a copy": (lambda: copy.deepcopy(nn.Linear(2, 2, device=CUDA)).weight, True),
    "a norm": (lambda: nn.LayerNorm(4, device=CUDA)(on(2, 4)), True),
    "vmap": (lambda: torch.vmap(lambda row: row * 2 + torch.tensor(1.0))(on(2, 3)), True),
}


def _inside(make):
    with torch.device("cuda"):
        return make(2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", list(PLACES))
def test_where_tensors_are(kind, case):
    make, expected = PLACES[case]
    with cuda(kind) as device:
        result = make()
        assert result.device == (device if expected else torch.device("cpu"))
        assert (result.is_cuda, result.is_cpu, result.get_device()) == (expected, not expected, 0 if expected else -1)


@pytest.mark.parametrize("kind", KINDS)
def test_moving_copies_and_slices_are_copied_to_from_anywhere(kind):
    with cuda(kind) as device:
        here = torch.zeros(4)
        there = here.to(device)
        there += 1
        assert here.tolist() == [0.0] * 4 and here.device.type == "cpu" and there.to(device) is there
        there[:2] = torch.tensor([5.0, 6.0])
        there[torch.tensor([3])] = torch.tensor(7.0)
        here[1:] = there[1:]
        assert there.tolist() == [5.0, 6.0, 1.0, 7.0] and here.tolist() == [0.0, 6.0, 1.0, 7.0]
        assert float(there.sum()) == there.sum().item() == 19.0 and bool(there[0] == 5)


class Tied(nn.Module):
    """Batch statistics as buffers, and one weight in two places."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.out, self.back = (
            nn.Linear(4, 8),
            nn.BatchNorm1d(8),
            nn.Linear(8, 4),
            nn.Linear(8, 4),
        )
        self.back.weight = self.out.weight

    def forward(self, x):
        hidden = self.norm(self.first(x))
        return self.out(hidden) + self.back(hidden)


@pytest.mark.parametrize("kind", KINDS)
def test_a_module_moves_and_trains_as_on_the_cpu(kind):
    """Parameters stay the parameters they were, tied ones tied; gradients and optimizer state are beside them."""
    torch.manual_seed(0)
    here, images, labels, losses = Tied(), torch.rand(6, 4), torch.tensor([0, 1, 2, 3, 0, 1]), []
    there = copy.deepcopy(here)
    with cuda(kind) as device:
        before = list(there.parameters())
        assert all(one is other for one, other in zip(there.to(device).parameters(), before, strict=True))
        assert all(isinstance(p, nn.Parameter) and p.device == device for p in before)
        assert there.back.weight is there.out.weight and there.norm.running_mean.device == device
        for model, where in ((here, torch.device("cpu")), (there, device)):
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(images.to(where)), labels.to(where))
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
            losses.append(loss.item())
        assert all(p.grad.device == device for p in before)
        assert optimizer.state[before[0]]["exp_avg"].device == device
        state = {name: value.cpu() for name, value in there.state_dict().items()}
        assert not any(value.is_cuda for value in state.values())
        there.load_state_dict(state)
        assert there.first.weight.device == device
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_operators_of_networks(kind):
    """Values are those of the CPU."""
    torch.manual_seed(0)
    convolution, norm, table = nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Embedding(5, 8)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    images, ids = torch.rand(2, 3, 8, 8), torch.tensor([[0, 1, 4], [2, 2, 3]])

    def computed(device):
        for module in (convolution, attention, norm, table):
            module.to(device)
        maps = functional.interpolate(norm(convolution(images.to(device))), size=(5, 5), mode="bilinear")
        tokens = table(ids.to(device))
        mask = torch.ones(3, 3, device=device).triu(1).bool()
        mixed, weights = attention(tokens, tokens, tokens, attn_mask=mask)
        scattered = tokens.masked_scatter((ids.to(device) == 2)[..., None], torch.arange(16.0, device=device))
        put = scattered.index_put((torch.tensor([0, 1]), torch.tensor([2, 0])), torch.ones(8, device=device))
        return [maps, mixed, weights, scattered, put]

    with torch.no_grad():
        expected = computed(torch.device("cpu"))
        with cuda(kind) as device:
            outputs = computed(device)
            assert all(tensor.device == device for tensor in outputs)
            outputs = [tensor.cpu() for tensor in outputs]
    for one, other in zip(outputs, expected, strict=True):
        torch.testing.assert_close(one, other, atol=close(kind), rtol=close(kind))


def close(kind: str) -> float:
    """A real GPU multiplies in TF32."""
    return 1e-5 if kind == "fake" else 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_autocast(kind):
    with cuda(kind) as device:
        layer, x = nn.Linear(4, 4, device=device), torch.rand(2, 4, device=device)
        assert not torch.is_autocast_enabled("cuda")
        for dtype in (torch.bfloat16, torch.float16):
            with torch.autocast("cuda", dtype=dtype):
                assert torch.is_autocast_enabled("cuda") and layer(x).dtype == dtype
                with torch.autocast("cuda", enabled=False):
                    assert layer(x).dtype == torch.float32
                loss = layer(x).float().sum()
            loss.backward()
        assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_safetensors_are_read_onto_the_device(kind, tmp_path):
    save_file({"a": torch.arange(3)}, tmp_path / "f.safetensors")
    with cuda(kind) as device:
        for name in ("cuda", "cuda:0", device):
            loaded = load_file(tmp_path / "f.safetensors", device=str(name))["a"]
            assert loaded.device == device and loaded.tolist() == [0, 1, 2]
        assert load_file(tmp_path / "f.safetensors")["a"].device.type == "cpu"


def test_outside_nothing_is_left_of_it():
    with fake_cuda():
        inside = torch.zeros(3, device="cuda")
        assert is_marked(inside)
    assert inside.device.type == "cpu" and (inside + torch.ones(3)).tolist() == [1.0] * 3
    assert type(torch.Generator()).__name__ == "Generator" and not hasattr(torch.Generator(), "on_cuda")


# Whole models, clean and with a planted fault.


@pytest.mark.parametrize("kind", KINDS)
def test_a_language_model_trains_and_generates_token_by_token(kind, tmp_path):
    from transformers import AutoModelForCausalLM, DynamicCache

    model = AutoModelForCausalLM.from_pretrained(causal_lm(tmp_path)).eval()
    ids = torch.randint(5, 200, (2, 7))

    def run(device):
        model.to(device)
        model.zero_grad()
        output = model(input_ids=ids.to(device), labels=ids.to(device), attention_mask=torch.ones_like(ids).to(device))
        output.loss.backward()
        gradient = model.get_input_embeddings().weight.grad
        assert gradient.device == device
        cache, new, mask = DynamicCache(), ids.to(device), torch.ones(2, 7, dtype=torch.long, device=device)
        tokens = []
        with torch.no_grad():
            for _ in range(5):
                logits = model(input_ids=new, attention_mask=mask, cache=cache).logits[:, -1]
                new = logits.argmax(dim=-1, keepdim=True)
                mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
                tokens.append(new)
        return output.loss.item(), gradient.abs().sum().item(), torch.cat(tokens, dim=1).tolist()

    expected = run(torch.device("cpu"))
    with cuda(kind) as device:
        outputs = run(device)
        assert outputs[:2] == pytest.approx(expected[:2], rel=1e-3) and outputs[2] == expected[2]
        with torch.no_grad(), pytest.raises(RuntimeError, match=SAME_DEVICE):
            model(input_ids=ids)
        with torch.no_grad(), pytest.raises(RuntimeError, match=SAME_DEVICE):
            model(input_ids=ids.to(device), position_ids=torch.arange(7)[None], attention_mask=torch.ones(2, 7).long())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [llava, qwen])
def test_vision_language_models_with_lora(kind, make, tmp_path):
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(make(tmp_path)).requires_grad_(False)
    processor = AutoProcessor.from_pretrained(tmp_path)
    mark = "<image>" if make is llava else "<|vision_start|><|image_pad|><|vision_end|>"
    inputs = processor(images=torch.rand(3, 56, 56), text=f"{mark} What?", return_tensors="pt", do_rescale=False)
    targets = [name for name, _ in model.named_modules() if name.endswith(("q_proj", "v_proj")) and "language" in name]
    with cuda(kind) as device:
        model.to(device)
        inject_adapter_in_model(LoraConfig(r=2, target_modules=targets), model)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert len(trained) == 8 and all(p.device == device for p in trained.values())
        moved = {name: value.to(device) for name, value in inputs.items()}
        model(**moved, labels=moved["input_ids"]).loss.backward()
        assert all(p.grad.device == device for p in trained.values())
        with pytest.raises(RuntimeError, match=SAME_DEVICE):
            model(**{**moved, "pixel_values": inputs["pixel_values"]})


@pytest.mark.parametrize("kind", KINDS)
def test_sam(kind, tmp_path):
    from transformers import SamModel

    model, images = SamModel.from_pretrained(sam(tmp_path)), torch.rand(1, 3, 64, 64)
    points = torch.tensor([[[[10.0, 12.0]]]])
    expected = model(pixel_values=images, input_points=points).pred_masks.detach()
    with cuda(kind) as device:
        masks = model.to(device)(pixel_values=images.to(device), input_points=points.to(device)).pred_masks
        assert masks.device == device
        masks.mean().backward()
        assert model.mask_decoder.iou_token.weight.grad.device == device
        torch.testing.assert_close(masks.detach().cpu(), expected, atol=close(kind), rtol=close(kind))
        with pytest.raises(RuntimeError, match=SAME_DEVICE):
            model(pixel_values=images.to(device), input_points=points)
