"""The language side of reasoning segmentation on tiny local models of the real classes."""

import pytest
import torch

from tests.tiny_models import causal_lm, llava, qwen
from zoo.encoders.clip import SmallClip
from zoo.encoders.vision import ClipVision, TimmVisionEncoder, merge_patches
from zoo.language.causal_lm import CausalLM
from zoo.language.global_context import CausalContext, GlobalContext
from zoo.language.vision_language import VisionLanguageContext

TURNS = [("Segment the heart.", "The heart [SEG]."), ("And both lungs?", "Right [SEG], left [SEG].")]


def small_vision() -> ClipVision:
    torch.manual_seed(1)
    sizes = {"width": 64, "layers": 2, "text_width": 32, "text_layers": 2, "embedding": 32}
    return ClipVision(SmallClip(image_size=32, patch_size=8, **sizes))


def make(kind: str, folder) -> GlobalContext:
    if kind == "causal":
        return CausalContext(small_vision(), CausalLM(str(causal_lm(folder)))).eval()
    if kind == "llava":
        return VisionLanguageContext(str(llava(folder))).eval()
    return VisionLanguageContext(str(qwen(folder)), family="qwen2_5_vl", image_size=56).eval()


@pytest.fixture(scope="module", params=["causal", "llava", "qwen"])
def context(request, tmp_path_factory):
    return make(request.param, tmp_path_factory.mktemp("model") / request.param)


def image(seed: int = 0, height: int = 40, width: int = 50) -> torch.Tensor:
    return torch.rand(1, height, width, generator=torch.Generator().manual_seed(seed))


def test_seg_positions_are_found_in_the_merged_sequence(context):
    tokens = context.encode_images([image()])[0]
    ids, labels = context.tokenize(TURNS, len(tokens))
    assert ids.count(context.image_token_id) == len(tokens) and len(ids) == len(labels)
    assert ids.count(context.seg_token_id) == labels.count(context.seg_token_id) == 3
    answers = context.tokenizer.decode([label for label in labels if label >= 0])
    assert "The heart [SEG]." in answers and "Segment" not in answers and labels.count(context.eos_token_id) >= 2


def test_a_question_cannot_act_as_special_tokens(context):
    end = context.tokenizer.eos_token
    ids, labels = context.tokenize([(f"What {end} <image> [SEG] is it?", None)], 4)
    plain, _ = context.tokenize([("What is it?", None)], 4)
    assert ids.count(context.image_token_id) == 4 and context.seg_token_id not in ids
    assert ids.count(context.eos_token_id) == plain.count(context.eos_token_id) and set(labels) == {-100}


def seen_in(context: GlobalContext, *seeds: int) -> list[torch.Tensor]:
    return [context.project(tokens) for tokens in context.encode_images([image(seed) for seed in seeds])]


@torch.no_grad()
def test_a_batch_gives_what_each_gives_alone(context):
    seen = seen_in(context, 0, 1)
    pairs = [context.tokenize(TURNS[:1], len(seen[0]))[0], context.tokenize(TURNS, len(seen[1]))[0]]
    length = max(map(len, pairs))
    ids = torch.tensor([row + [context.eos_token_id] * (length - len(row)) for row in pairs])
    together = context.hidden_states(ids, seen)
    for index, row in enumerate(pairs):
        alone = context.hidden_states(torch.tensor([row]), [seen[index]])
        torch.testing.assert_close(together[index, : len(row)], alone[0], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_cached_generation_has_the_hidden_states_of_the_whole_sequence(context, monkeypatch):
    """The model is made to write [SEG] twice; each state equals that of a pass over everything."""
    seen = seen_in(context, 0, 1)
    prompts = [context.tokenize([(question, None)], len(seen[0]))[0] for question, _ in TURNS]
    script = iter([5, context.seg_token_id, 7, context.seg_token_id, 9, context.eos_token_id])
    monkeypatch.setattr(context, "next_token_ids", lambda state: torch.full((2,), next(script)))
    answers = context.generate(prompts, seen)
    for prompt, answer, own in zip(prompts, answers, seen, strict=True):
        whole = torch.tensor([[*prompt, 5, context.seg_token_id, 7, context.seg_token_id, 9]])
        hidden = context.hidden_states(whole, [own])
        torch.testing.assert_close(
            answer.seg_hidden_states, hidden[0, whole[0] == context.seg_token_id], atol=2e-5, rtol=1e-4
        )
        assert answer.ended and answer.text.count("[SEG]") == 2


def test_an_answer_that_never_ends_is_cut_and_says_so(context, monkeypatch):
    seen = seen_in(context, 0)
    prompt = context.tokenize([("Where?", None)], len(seen[0]))[0]
    monkeypatch.setattr(context, "next_token_ids", lambda state: torch.full((1,), context.seg_token_id))
    (answer,) = context.generate([prompt], seen, max_new_tokens=5)
    assert not answer.ended and len(answer.seg_hidden_states) == 5


@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_leave_the_old_ones_bit_for_bit(tmp_path, tied):
    language = CausalLM(str(causal_lm(tmp_path, tied=tied)))
    before = [
        table.weight.detach().clone()
        for table in (language.model.get_input_embeddings(), language.model.get_output_embeddings())
    ]
    context = CausalContext(small_vision(), language)
    for table, old in zip(
        (language.model.get_input_embeddings(), language.model.get_output_embeddings()), before, strict=True
    ):
        assert len(table.weight) == len(old) + 2 and torch.equal(table.weight[: len(old)], old)
    assert {context.seg_token_id, context.image_token_id} == {len(before[0]), len(before[0]) + 1}


def test_qwen_positions_are_those_of_transformers(tmp_path):
    context = make("qwen", tmp_path / "qwen")
    tokens = context.encode_images([image()])[0]
    pairs = [context.tokenize(TURNS[:count], len(tokens))[0] for count in (1, 2)]
    length = max(map(len, pairs))
    ids = torch.tensor([row + [context.eos_token_id] * (length - len(row)) for row in pairs])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in pairs])
    grid = torch.tensor([[1, 2 * context.grid, 2 * context.grid]] * 2)
    wanted, _ = context.model.model.get_rope_index(
        ids, mm_token_type_ids=(ids == context.image_token_id).int(), image_grid_thw=grid, attention_mask=mask
    )
    made = context.position_ids(ids, mask)
    assert torch.equal(made[:, mask.bool()], wanted[:, mask.bool()])


def test_a_merged_token_holds_its_square_of_places():
    places = torch.arange(16.0).reshape(1, 4, 4)
    tokens = merge_patches(torch.cat([places, places + 100]), 2)
    assert tokens[1].tolist() == [2.0, 3.0, 6.0, 7.0, 102.0, 103.0, 106.0, 107.0]
    assert tokens.shape == (4, 8) and sorted(tokens.flatten().tolist()) == [*range(16), *range(100, 116)]


@torch.no_grad()
def test_merging_leaves_a_quarter_of_the_image_tokens(tmp_path):
    language = CausalLM(str(causal_lm(tmp_path / "lm")))
    context = CausalContext(small_vision(), language, merge=2).eval()
    looked = torch.stack(context.encode_images([image(0), image(1)]))
    changed = looked.clone()
    changed[:, [10, 11, 14, 15]] += 1  # the lower right square of 4 x 4 places
    seen, other = context.project(looked), context.project(changed)
    assert looked.shape[1] == 16 and seen.shape[1] == 4
    assert (seen != other).any(dim=-1).tolist() == [[False, False, False, True]] * 2
    with pytest.raises(ValueError, match="merge is 3, of 4 x 4 tokens"):
        CausalContext(small_vision(), language, merge=3)


def test_timm_gives_patch_tokens():
    vision = TimmVisionEncoder("vit_tiny_patch16_224", image_size=32)
    assert vision(torch.rand(2, 3, 32, 32)).shape == (2, vision.tokens, vision.width) == (2, 4, 192)
