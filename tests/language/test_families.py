"""Published sizes, and image tokens without a processor."""

import pytest
import torch

from tests.tiny_models.vision_language import FAMILIES, write_numbers
from zoo.errors import MissingWeightsError
from zoo.language.families import VERIFIED, image_side, planned_tokens, published
from zoo.language.vision_language import VisionLanguageContext
from zoo.pretrained import without_weights


@pytest.mark.parametrize(
    ("source", "side", "tokens"),
    [
        ("llava-hf/llava-1.5-7b-hf", 336, 576),
        ("owner/llava-med-v1.5-mistral-7b-hf", 336, 576),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 448, 256),
        ("Qwen/Qwen3-VL-8B-Instruct", 448, 196),
        ("google/medgemma-4b-it", 896, 256),
    ],
)
def test_image_tokens_of_published_models(source, side, tokens):
    config, dtype = published(source)
    assert config.model_type in VERIFIED and dtype in (torch.float16, torch.bfloat16)
    assert image_side(config, None) == side and planned_tokens(config, side, source) == tokens


def test_one_size_is_kept_and_any_size_is_chosen():
    assert image_side(published("llava-1.5-7b")[0], 448) == 336
    assert image_side(published("qwen2.5-vl-7b")[0], 560) == 560


def test_sizes_that_are_not_known():
    with pytest.raises(MissingWeightsError, match="sizes of owner/unknown are not known; plan from a local folder"):
        published("owner/unknown")
    config, _ = published("medgemma-4b")
    config.model_type = "idefics3"
    with pytest.raises(MissingWeightsError, match="of a model of type idefics3 are its processor's"):
        planned_tokens(config, 448, "owner/unknown")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_local_folder_is_planned_with_the_tokens_that_it_has(name, tmp_path):
    write_numbers()
    folder = str(FAMILIES[name](tmp_path))
    loaded = VisionLanguageContext(folder, image_size=64)
    with torch.device("meta"), without_weights():
        planned = VisionLanguageContext(folder, image_size=64)
        image = torch.zeros(3, 64, 64)
        (features,) = planned.encode_images([image])
    assert planned.tokens_per_image == loaded.tokens_per_image
    assert features.shape == loaded.encode_images([torch.zeros(3, 64, 64)])[0].shape


def test_every_verified_family_has_a_tiny_model():
    assert len(VERIFIED) == len(FAMILIES) == 11
