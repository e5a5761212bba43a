"""Precision of a frozen base, and autocast."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from zoo.precision import autocast_to, base_dtype, cast_base, dtype_of, float32_attention


def test_a_cast_leaves_trained_weights_buffers_and_batch_norm_in_float32():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)).requires_grad_(False)
    module[2].requires_grad_(True).half()
    module.register_buffer("positions", torch.ones(2))
    cast_base(module, torch.bfloat16)
    assert module[0].weight.dtype == torch.bfloat16 and module[2].weight.dtype == torch.float32
    assert module[1].weight.dtype == module[1].running_mean.dtype == module.positions.dtype == torch.float32


def test_tied_weights_stay_tied():
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    second.weight = nn.Parameter(first.weight.data)  # another parameter on the same memory
    module = nn.ModuleList([first, second]).requires_grad_(False)
    cast_base(module, torch.bfloat16)
    assert first.weight.dtype == torch.bfloat16 and first.weight.data_ptr() == second.weight.data_ptr()


def test_the_base_dtype_is_that_of_most_frozen_numbers():
    many, few, trained = nn.Linear(8, 8).bfloat16(), nn.Linear(2, 2), nn.Linear(64, 64)
    module = nn.ModuleList([many.requires_grad_(False), few.requires_grad_(False), trained])
    assert base_dtype(module.parameters()) == torch.bfloat16
    assert base_dtype(trained.parameters()) == torch.float32


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("bf16-mixed", torch.bfloat16),
        ("bf16", torch.bfloat16),
        ("16-true", torch.float16),
        ("32-true", None),
        (None, None),
    ],
)
def test_names_of_precisions(name, dtype):
    assert dtype_of(name) == dtype


def test_autocast_computes_in_two_bytes_and_new_tensors_are_float32():
    layer, inputs = nn.Linear(2, 2), torch.ones(1, 2)
    with autocast_to(torch.bfloat16, torch.device("cpu")):
        assert layer(inputs).dtype == torch.bfloat16 and torch.ones(1).dtype == torch.float32
    with autocast_to(torch.float32, torch.device("cpu")):
        assert layer(inputs).dtype == torch.float32


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"attn_mask": torch.zeros(5, 5)}, {"scale": 0.1}])
def test_attention_is_computed_in_float32_on_cpus_and_backwards_too(options):
    leaves = [torch.randn(2, 3, 5, 8, requires_grad=True) for _ in range(3)]
    expected = functional.scaled_dot_product_attention(*leaves, **options)
    expected_gradients = torch.autograd.grad(expected.sum(), leaves)

    def attended() -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return functional.scaled_dot_product_attention(*leaves, **options)

    rounded = attended()
    with float32_attention():
        inside = attended()
        gradients = torch.autograd.grad(inside.sum(), leaves)
    assert inside.dtype == torch.bfloat16 and torch.equal(inside, expected.bfloat16())
    assert all(torch.equal(*pair) for pair in zip(gradients, expected_gradients, strict=True))
    assert torch.equal(attended(), rounded) and not torch.equal(rounded, inside)


def test_attention_without_autocast_is_as_it_was():
    query = torch.randn(2, 3, 5, 8, dtype=torch.bfloat16)
    expected = functional.scaled_dot_product_attention(query, query, query)
    with float32_attention():
        assert torch.equal(functional.scaled_dot_product_attention(query, query, query), expected)
