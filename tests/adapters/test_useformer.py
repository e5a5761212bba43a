"""The USEformer: exact computation of the queries, padding, and its ablation."""

import torch

from zoo.adapters.useformer import USEformer


def test_the_parameter_count_of_the_docstring():
    useformer = USEformer(vision_width=768, text_width=512, layers=12)
    assert sum(parameter.numel() for parameter in useformer.parameters()) == 573_696


def test_computing_only_the_queries_of_the_last_block_is_exact():
    torch.manual_seed(0)
    useformer = USEformer(12, 10, layers=2, width=16, depth=3, queries=4, synergy=8).eval()
    image, text = torch.randn(2, 5, 12), torch.randn(2, 6, 10)
    text_padding = torch.tensor([[False] * 4 + [True] * 2] * 2)
    queries = useformer.queries[1].expand(2, -1, -1)
    tokens = torch.cat([queries, useformer.from_image(image), useformer.from_text(text)], dim=1)
    padding = torch.cat([torch.zeros(2, 9, dtype=torch.bool), text_padding], dim=1)
    for block in useformer.blocks:
        tokens = block(tokens, src_key_padding_mask=padding)
    expected = useformer.norm(tokens[:, :4])
    for_image, for_text = useformer(1, image, text, text_padding)
    torch.testing.assert_close(for_image, useformer.to_image(expected), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(for_text, useformer.to_text(expected), atol=1e-5, rtol=1e-5)


def test_padding_is_ignored_and_tokens_are_not():
    torch.manual_seed(0)
    useformer = USEformer(12, 10, layers=1, width=16, queries=2, synergy=8).eval()
    image, text = torch.randn(1, 5, 12), torch.randn(1, 4, 10)
    padding = torch.tensor([[False, False, False, True]])
    changed = text.clone()
    changed[:, 3] += 1
    torch.testing.assert_close(useformer(0, image, text, padding), useformer(0, image, changed, padding))
    changed[:, 0] += 1
    assert not torch.allclose(useformer(0, image, text, padding)[0], useformer(0, image, changed, padding)[0])


def test_each_layer_has_its_queries():
    torch.manual_seed(0)
    useformer = USEformer(12, 10, layers=2, width=16, queries=2, synergy=8).eval()
    image, text = torch.randn(1, 5, 12), torch.randn(1, 4, 10)
    assert not torch.allclose(useformer(0, image, text)[0], useformer(1, image, text)[0])


def test_without_mixing_the_queries_attend_to_nothing():
    useformer = USEformer(12, 10, layers=1, width=16, queries=2, synergy=8, mix=False).eval()
    first, second = (useformer(0, torch.randn(1, 5, 12), torch.randn(1, 4, 10)) for _ in range(2))
    torch.testing.assert_close(first, second)
