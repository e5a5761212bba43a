"""Which weights are sharded. Training with shards, in real processes: tests/engine/test_strategies.py."""

import torch
from torch import nn

from zoo.adapters.lora import LoRA
from zoo.methods.clip_classification import ClipClassification
from zoo.methods.sharding import gather_state, is_sharded, shard_like, sharded_parameters, transformer_blocks


def test_blocks_are_the_layers_of_both_towers(tiny_clip):
    expected = [*tiny_clip.model.visual.transformer.resblocks, *tiny_clip.model.transformer.resblocks]
    assert set(transformer_blocks([tiny_clip])) == set(expected) and len(expected) == 6


def test_lists_without_attention_are_no_blocks():
    assert transformer_blocks([nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))]) == []


def test_blocks_and_trained_weights_are_sharded_and_nothing_else(tiny_clip):
    method = ClipClassification(tiny_clip, LoRA, ["dots", "stripes"])
    sharded = {id(parameter) for parameter in sharded_parameters(method, [tiny_clip])}
    for name, parameter in method.named_parameters():
        assert (id(parameter) in sharded) == (".resblocks." in name or parameter.requires_grad), name


def test_tensors_that_are_not_sharded_stay_as_they_are():
    state = {"weights": {"a": torch.ones(2)}, "step": 3}
    assert gather_state(state) == state and gather_state(state, keep=False) == {}
    parameter = nn.Parameter(torch.zeros(2))
    assert shard_like(state["weights"]["a"], parameter) is state["weights"]["a"] and not is_sharded(parameter)
