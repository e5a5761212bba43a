"""The cache of a batch whose rows grow by different numbers of tokens."""

import pytest
import torch

from tests.tiny_models.vision_language import gemma3, llava, qwen
from zoo.language.ragged_cache import RaggedCache
from zoo.language.vision_language import VisionLanguageContext


@torch.no_grad()
@pytest.mark.parametrize("make", [llava, qwen, gemma3])
def test_rows_that_wait_are_left_as_they_are(make, tmp_path):
    context = VisionLanguageContext(str(make(tmp_path)), image_size=56).eval()
    cache = RaggedCache(context, 2, torch.device("cpu"))
    first, second = list(range(5, 25)), [8]
    cache.append([first, second], [])
    cache.append([[], list(range(40, 60))], [])
    last = cache.append([[11], [12]], [])
    assert cache.input_ids.shape == cache.attention_mask.shape == (2, 41)
    assert cache.attention_mask.sum(dim=1).tolist() == [21, 22]
    for row, sequence in enumerate(([*first, 11], [*second, *range(40, 60), 12])):
        expected = context.hidden_states(torch.tensor([sequence]), [])[0, -1]
        torch.testing.assert_close(last[row], expected, atol=1e-5, rtol=1e-4)
