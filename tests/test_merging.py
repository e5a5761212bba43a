"""LoRA merged into its base: the same function, and no layer of peft is left."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from zoo.errors import UnsupportedError
from zoo.merging import merge_lora


def with_lora(**options: object) -> nn.Module:
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4))
    model = nn.Sequential(OrderedDict(table=nn.Embedding(9, 8), layers=layers))
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["layers.0", "layers.2"], bias="none", **options)
    model = inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "delta" in name:
            parameter.data = torch.randn_like(parameter)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [{}, {"trainable_token_indices": {"table": [7, 8]}}], ids=["layers", "rows of a table"]
)
def test_the_function_stays_and_peft_goes(options):
    model, ids = with_lora(**options), torch.tensor([0, 3, 7, 8])
    before = model(ids)
    assert merge_lora(model) == 2 + len(options)
    torch.testing.assert_close(model(ids), before)
    assert sorted(model.state_dict()) == [
        *(f"layers.{i}.{part}" for i in (0, 2) for part in ("bias", "weight")),
        "table.weight",
    ]
    assert merge_lora(model) == 0


def test_a_quantised_base_is_refused():
    model = with_lora()
    base = model.layers[0].get_base_layer()
    base.weight = nn.Parameter(torch.zeros(8, 8, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(UnsupportedError, match=r"layers\.0 is quantised"):
        merge_lora(model)
