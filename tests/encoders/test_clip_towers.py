"""The layer-by-layer view of every kind of tower gives the features of the model's own forward."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.tiny_models import biomedclip_layout
from zoo.encoders.clip_towers import UnsupportedTowerError, fold_projections, text_tower, vision_tower


def custom_text_clip():
    import open_clip

    vision = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2}
    return open_clip.CustomTextCLIP(
        16, vision, {"width": 32, "heads": 2, "layers": 2, "vocab_size": 64, "context_length": 12}
    ).eval()


class TimmVisual(nn.Module):
    """As open_clip's TimmModel, around a trunk that is given."""

    image_size = (32, 32)

    def __init__(self, trunk):
        super().__init__()
        self.trunk, self.head = trunk, nn.Linear(64, 16, bias=False)

    def forward(self, images):
        return self.head(self.trunk(images))


def eva_clip(**options):
    from timm.models.eva import Eva

    model = custom_text_clip()
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 0}
    model.visual = TimmVisual(Eva(**sizes, **options)).eval()
    return model


EVAS = [
    {"use_rot_pos_emb": True, "ref_feat_shape": (4, 4), "swiglu_mlp": True, "global_pool": "token"},  # EVA-02
    {"use_rot_pos_emb": True, "global_pool": "map", "use_pre_transformer_norm": True},  # Perception Encoder
    {"use_rot_pos_emb": True, "rope_type": "mixed", "num_reg_tokens": 2, "global_pool": "avg"},
    {"use_rot_pos_emb": False, "global_pool": "token"},  # EVA-01
]
MODELS = [custom_text_clip, biomedclip_layout, *(partial(eva_clip, **options) for options in EVAS)]


@pytest.mark.parametrize("make", MODELS)
@torch.no_grad()
def test_other_tower_kinds_give_the_models_own_features(make):
    torch.manual_seed(0)
    model = make()
    vision, text = vision_tower(model), text_tower(model)
    size = model.visual.image_size
    images = torch.rand(
        2, 3, size[0] if isinstance(size, tuple) else size, size[1] if isinstance(size, tuple) else size
    )
    tokens = vision.start(images)
    assert tokens.shape[1] == vision.prefix + vision.grid[0] * vision.grid[1] and tokens.shape[2] == vision.width
    for layer in range(vision.depth):
        tokens = vision.layer(layer, tokens)
    torch.testing.assert_close(vision.finish(tokens), model.encode_image(images), atol=1e-5, rtol=1e-4)

    ids = torch.tensor([[1, 5, 9, 62, 0, 0, 0, 0, 0, 0, 0, 0], [1, 4, 8, 9, 3, 63, 0, 0, 0, 0, 0, 0]])
    trimmed = text.trim(ids)
    assert trimmed.shape[1] == 6
    tokens, mask = text.start(text.embed(trimmed), trimmed)
    for layer in range(text.depth):
        tokens = text.layer(layer, tokens, mask)
    torch.testing.assert_close(text.finish(tokens, trimmed), model.encode_text(ids), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_tokens_that_join_an_eva_are_not_rotated():
    vision = vision_tower(eva_clip(**EVAS[0]))
    tokens = vision.start(torch.rand(2, 3, 32, 32))
    joined = vision.layer(0, torch.cat([tokens, tokens[:, :1], tokens[:, :1]], dim=1))
    torch.testing.assert_close(joined[:, -2:], joined[:, :1].expand(-1, 2, -1))  # as the class token, which they copy


def test_bidirectional_text_without_padding_mask_is_not_trimmed():
    import open_clip

    text = {
        "width": 32,
        "heads": 2,
        "layers": 1,
        "vocab_size": 64,
        "context_length": 12,
        "no_causal_mask": True,
        "pool_type": "last",
    }
    tower = text_tower(
        open_clip.CustomTextCLIP(16, {"image_size": 32, "patch_size": 8, "width": 64, "layers": 1}, text)
    )
    ids = torch.tensor([[1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
    assert tower.trim(ids).shape == ids.shape


def test_unsupported_text_towers_are_refused():
    import open_clip

    text = {"width": 32, "heads": 2, "layers": 1, "vocab_size": 64, "context_length": 12, "embed_cls": True}
    coca = open_clip.CustomTextCLIP(16, {"image_size": 32, "patch_size": 8, "width": 64, "layers": 1}, text)
    with pytest.raises(UnsupportedTowerError, match="appended class token"):
        text_tower(coca)
    model = biomedclip_layout()
    del model.text.transformer.encoder
    with pytest.raises(UnsupportedTowerError, match="not laid out as BERT"):
        text_tower(model)


class Products(TorchDispatchMode):
    """Notes the width of the second factor of each batched product."""

    def __init__(self):
        super().__init__()
        self.widths = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.bmm.default:
            self.widths.append(args[1].shape[-1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("causal", [False, True])
def test_frozen_attention_multiplies_by_its_weights_once(causal):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(64, 1, batch_first=True).requires_grad_(False)
    folded = copy.deepcopy(attention)
    fold_projections(folded)
    tokens = torch.randn(3, 5, 64, requires_grad=True)
    mask = torch.full((5, 5), -torch.inf).triu(1) if causal else None
    outputs, products = [], []
    for module in (attention, folded):
        with Products() as mode:
            outputs.append(module(tokens, tokens, tokens, need_weights=False, attn_mask=mask)[0])
        products.append([width for width in mode.widths if width == 3 * 64])
    torch.testing.assert_close(outputs[1], outputs[0])
    assert products == [[192], []], "the first says that torch still does not fold by itself"


def test_attention_to_other_tokens_is_left_alone():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    tokens, others = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    expected = attention(tokens, others, others)[0]
    fold_projections(attention)
    assert torch.equal(attention(tokens, others, others)[0], expected)
