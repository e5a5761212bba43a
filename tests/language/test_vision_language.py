"""LLaVA and Qwen2.5-VL as they are: image features and positions are those of transformers."""

import pytest
import torch
from transformers import AutoProcessor

from tests.tiny_models import llava, qwen
from zoo.language.vision_language import VisionLanguageContext

TURNS = [("Segment the heart.", "The heart [SEG]."), ("And both lungs?", "Right [SEG], left [SEG].")]
IMAGES = torch.rand(2, 1, 40, 50, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def qwen_context(tmp_path_factory) -> VisionLanguageContext:
    folder = qwen(tmp_path_factory.mktemp("qwen"))
    return VisionLanguageContext(str(folder), family="qwen2_5_vl", image_size=56).eval()


def padded_conversations(context: VisionLanguageContext) -> tuple[torch.Tensor, torch.Tensor]:
    """Input ids and attention mask of two conversations of different length about one image each."""
    image_tokens = context.grid**2
    rows = [context.tokenize(TURNS[:count], image_tokens)[0] for count in (1, 2)]
    length = max(map(len, rows))
    input_ids = torch.tensor([row + [context.eos_token_id] * (length - len(row)) for row in rows])
    return input_ids, torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])


def test_qwens_position_ids_are_those_of_transformers(qwen_context):
    context = qwen_context
    input_ids, attention_mask = padded_conversations(context)
    expected, _ = context.model.model.get_rope_index(
        input_ids,
        mm_token_type_ids=(input_ids == context.image_token_id).int(),
        image_grid_thw=torch.tensor([[1, 2 * context.grid, 2 * context.grid]] * 2),
        attention_mask=attention_mask,
    )
    position_ids = context.position_ids(input_ids, attention_mask)
    assert torch.equal(position_ids[:, attention_mask.bool()], expected[:, attention_mask.bool()])


def test_qwens_next_position_follows_the_greatest_of_the_three(qwen_context):
    position_ids = torch.tensor([[[0, 1, 1]], [[0, 1, 2]], [[0, 1, 4]]])
    assert qwen_context.next_position_ids(position_ids).tolist() == [[[5]]] * 3


def test_qwens_images_are_tokens_of_the_square(qwen_context):
    features = qwen_context.encode_images(list(IMAGES))
    assert qwen_context.grid == 2 and [tuple(part.shape) for part in features] == [(4, 32)] * 2


@torch.no_grad()
def test_llavas_logits_are_those_of_its_own_processor_and_forward(tmp_path):
    context = VisionLanguageContext(str(llava(tmp_path))).eval()
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))  # the model's size already
    image_embeds = [context.project(features) for features in context.encode_images([image])]
    input_ids = torch.tensor([context.tokenize(TURNS[:1], len(image_embeds[0]))[0]])
    logits = context.logits(context.hidden_states(input_ids, image_embeds))
    process = AutoProcessor.from_pretrained(tmp_path).image_processor
    pixel_values = process(images=[image], do_rescale=False, return_tensors="pt")["pixel_values"]
    expected = context.model(input_ids=input_ids, pixel_values=pixel_values).logits
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-4)
