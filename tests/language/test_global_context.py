"""The language side of reasoning segmentation on tiny local models of the real classes."""

import pytest
import torch

from tests.tiny_models import causal_lm, llava, qwen
from zoo.constants import IGNORE_INDEX
from zoo.encoders.clip import SmallClip
from zoo.encoders.vision import ClipVision
from zoo.language.causal_lm import CausalLM
from zoo.language.global_context import CausalContext, GlobalContext
from zoo.language.vision_language import VisionLanguageContext

TURNS = [("Segment the heart.", "The heart [SEG]."), ("And both lungs?", "Right [SEG], left [SEG].")]


def small_vision() -> ClipVision:
    torch.manual_seed(1)
    sizes = {"width": 64, "layers": 2, "text_width": 32, "text_layers": 2, "embedding": 32}
    return ClipVision(SmallClip(image_size=32, patch_size=8, **sizes))


@pytest.fixture(scope="module", params=["causal_lm", "llava", "qwen"])
def context(request, tmp_path_factory) -> GlobalContext:
    folder = tmp_path_factory.mktemp("model") / request.param
    if request.param == "causal_lm":
        return CausalContext(small_vision(), CausalLM(str(causal_lm(folder)))).eval()
    if request.param == "llava":
        return VisionLanguageContext(str(llava(folder))).eval()
    return VisionLanguageContext(str(qwen(folder)), image_size=56).eval()


def image(seed: int = 0, height: int = 40, width: int = 50) -> torch.Tensor:
    return torch.rand(1, height, width, generator=torch.Generator().manual_seed(seed))


def embeds_of(context: GlobalContext, *seeds: int) -> list[torch.Tensor]:
    return [context.project(features) for features in context.encode_images([image(seed) for seed in seeds])]


def test_a_conversation_is_tokenized_with_one_placeholder_for_each_image_token(context):
    image_tokens = len(embeds_of(context, 0)[0])
    input_ids, labels = context.tokenize(TURNS, image_tokens)
    assert input_ids.count(context.image_token_id) == image_tokens and len(input_ids) == len(labels)
    assert input_ids.count(context.seg_token_id) == labels.count(context.seg_token_id) == 3
    learned = context.tokenizer.decode([label for label in labels if label != IGNORE_INDEX])
    assert "The heart [SEG]." in learned and "Right [SEG], left [SEG]." in learned and "Segment" not in learned
    assert labels.count(context.eos_token_id) >= 2
    assert all(label in (token, IGNORE_INDEX) for token, label in zip(input_ids, labels, strict=True))


def test_special_tokens_in_a_question_are_removed(context):
    eos = context.tokenizer.eos_token
    tokens = context.tokens_per_image
    input_ids, labels = context.tokenize([(f"What {eos} <image> [SEG] is it?", None)], tokens)
    plain, _ = context.tokenize([("What is it?", None)], tokens)
    assert input_ids.count(context.image_token_id) == tokens and context.seg_token_id not in input_ids
    assert input_ids.count(context.eos_token_id) == plain.count(context.eos_token_id) and set(labels) == {IGNORE_INDEX}


@torch.no_grad()
def test_image_embeddings_are_placed_at_the_image_tokens_in_order(context):
    image_embeds = embeds_of(context, 0)
    input_ids = torch.tensor([context.tokenize(TURNS, len(image_embeds[0]))[0]])
    inputs_embeds = context.embed(input_ids, image_embeds)
    is_image = input_ids[0] == context.image_token_id
    torch.testing.assert_close(inputs_embeds[0, is_image], image_embeds[0])
    torch.testing.assert_close(inputs_embeds[0, ~is_image], context.lm.get_input_embeddings()(input_ids[0, ~is_image]))


@torch.no_grad()
def test_hidden_states_do_not_depend_on_the_batch(context):
    image_embeds = embeds_of(context, 0, 1)
    rows = [context.tokenize(TURNS[: 1 + index], len(embeds))[0] for index, embeds in enumerate(image_embeds)]
    length = max(map(len, rows))
    padded = torch.tensor([row + [context.eos_token_id] * (length - len(row)) for row in rows])
    together = context.hidden_states(padded, image_embeds)
    for index, row in enumerate(rows):
        alone = context.hidden_states(torch.tensor([row]), [image_embeds[index]])
        torch.testing.assert_close(together[index, : len(row)], alone[0], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_cached_generation_has_the_hidden_states_of_a_pass_over_the_sequence(context, monkeypatch):
    """Generation is scripted to contain [SEG] twice; prompts differ in length, so the shorter one is padded."""
    image_embeds = embeds_of(context, 0, 1)
    prompts = [context.tokenize([(question, None)], len(image_embeds[0]))[0] for question, _ in TURNS]
    assert len(prompts[0]) != len(prompts[1])
    script = iter([5, context.seg_token_id, 7, context.seg_token_id, 9, context.eos_token_id])
    monkeypatch.setattr(context, "next_token_ids", lambda states: torch.full((2,), next(script)))
    answers = context.generate(prompts, image_embeds)
    for prompt, answer, embeds in zip(prompts, answers, image_embeds, strict=True):
        input_ids = torch.tensor([[*prompt, 5, context.seg_token_id, 7, context.seg_token_id, 9]])
        expected = context.hidden_states(input_ids, [embeds])[0, input_ids[0] == context.seg_token_id]
        torch.testing.assert_close(answer.seg_hidden_states, expected, atol=2e-5, rtol=1e-4)
        assert answer.ended and answer.text.count("[SEG]") == 2


@torch.no_grad()
def test_generation_is_greedy_and_never_gives_an_image_token(context):
    (embeds,) = embeds_of(context, 0)
    prompt = context.tokenize([("Where?", None)], len(embeds))[0]
    states = context.hidden_states(torch.tensor([prompt]), [embeds])[:, -1]
    logits = context.logits(states)
    first, second = logits[0].topk(2).indices.tolist()
    expected = second if first == context.image_token_id else first
    assert context.next_token_ids(states).tolist() == [expected]
    output_layer = context.lm.get_output_embeddings()
    handle = output_layer.register_forward_hook(lambda _, __, scores: scores.index_fill(-1, image_id, 1e4))
    image_id = torch.tensor([context.image_token_id])
    assert context.next_token_ids(states).tolist() != [context.image_token_id]
    handle.remove()


def test_an_answer_that_does_not_end_is_cut_off(context, monkeypatch):
    image_embeds = embeds_of(context, 0)
    prompt = context.tokenize([("Where?", None)], len(image_embeds[0]))[0]
    monkeypatch.setattr(context, "next_token_ids", lambda states: torch.full((1,), context.seg_token_id))
    (answer,) = context.generate([prompt], image_embeds, max_new_tokens=5)
    assert not answer.ended and len(answer.seg_hidden_states) == 5


@pytest.mark.parametrize("tied", [True, False])
def test_new_embedding_rows_leave_the_old_ones_bit_for_bit(tmp_path, tied):
    language = CausalLM(str(causal_lm(tmp_path, tied=tied)))
    tables = language.model.get_input_embeddings, language.model.get_output_embeddings
    before = [table().weight.detach().clone() for table in tables]
    context = CausalContext(small_vision(), language)
    for table, old in zip(tables, before, strict=True):
        weight = table().weight
        assert len(weight) == len(old) + 2 and torch.equal(weight[: len(old)], old)
        torch.testing.assert_close(weight[len(old) :], old.mean(dim=0).expand(2, -1))
    assert {context.seg_token_id, context.image_token_id} == {len(before[0]), len(before[0]) + 1}


@torch.no_grad()
def test_merging_leaves_a_quarter_of_the_image_tokens(tmp_path):
    language = CausalLM(str(causal_lm(tmp_path / "lm")))
    context = CausalContext(small_vision(), language, merge=2).eval()
    features = torch.stack(context.encode_images([image(0), image(1)]))
    changed = features.clone()
    changed[:, [10, 11, 14, 15]] += 1  # the lower right square of 4 x 4 patches
    embeds, other = context.project(features), context.project(changed)
    assert features.shape[1] == 16 and embeds.shape[1] == 4
    assert (embeds != other).any(dim=-1).tolist() == [[False, False, False, True]] * 2
    with pytest.raises(ValueError, match="merge is 3, of 4 x 4 tokens"):
        CausalContext(small_vision(), language, merge=3)


def test_the_rejecting_token_comes_after_all_others(tmp_path):
    plain, rejecting = (CausalContext(small_vision(), CausalLM(str(causal_lm(tmp_path / name)))) for name in "ab")
    rejecting.add_reject_token()
    assert plain.rej_token_id is None and plain.new_token_ids == [plain.seg_token_id]
    assert rejecting.rej_token_id == len(plain.lm.get_input_embeddings().weight)
    assert rejecting.new_token_ids == [plain.seg_token_id, rejecting.rej_token_id]
    tables = [context.lm.get_input_embeddings().weight for context in (plain, rejecting)]
    assert torch.equal(tables[0], tables[1][:-1]) and not tables[1].requires_grad
    input_ids, labels = rejecting.tokenize([("The [REJ] mass?", "Mass [REJ]: no. Nodule [SEG].")], 2)
    assert labels.count(rejecting.rej_token_id) == labels.count(rejecting.seg_token_id) == 1
    assert input_ids.count(rejecting.rej_token_id) == 1, "a question has none"
    assert labels.index(rejecting.rej_token_id) < labels.index(rejecting.seg_token_id)
    assert rejecting.tokenizer.decode([rejecting.rej_token_id]) == "[REJ]"
