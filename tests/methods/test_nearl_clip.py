"""NEARL as a method passes its components and options to the adapter."""

from functools import partial

from zoo.adapters.nearl import NearlAdapter
from zoo.adapters.oca import OrthogonalCrossAttention
from zoo.adapters.useformer import USEformer
from zoo.methods.nearl_clip import NearlClip


def test_components_and_options_reach_the_adapter(tiny_clip):
    method = NearlClip(
        tiny_clip,
        ["dots", "stripes"],
        partial(USEformer, width=32, queries=3, synergy=24),
        partial(OrthogonalCrossAttention, rank=5),
        template="an image of {}",
        interaction="prototype",
        direction="image_to_text",
    )
    adapter = method.adapter
    assert isinstance(adapter, NearlAdapter) and adapter.interaction == "prototype"
    assert adapter.classes.prompts() == ["an image of dots", "an image of stripes"]
    assert adapter.useformer.queries.shape == (3, 3, 32) and adapter.useformer.to_text.out_features == 24
    assert adapter.image_oca is None and [oca.query.out_features for oca in adapter.text_oca] == [5] * 3
