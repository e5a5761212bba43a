"""Vision-language models as they are: sequences, logits and generation are those of transformers' own processor and forward."""

import warnings
from collections.abc import Callable

import pytest
import torch

from tests.own_forward import Loaded, load_family
from tests.tiny_models import sam
from tests.tiny_models.vision_language import FAMILIES, llava, qwen
from zoo.errors import ArgumentError, WeightsError
from zoo.language.ragged_cache import RaggedCache
from zoo.language.vision_language import VisionLanguageContext

QUESTIONS = ("Where is it?", "Is there a nodule in the left lung, please?")


@pytest.fixture(scope="module")
def load(tmp_path_factory) -> Callable[..., Loaded]:
    """Loads a family once, for one image or for several."""
    loaded: dict[tuple[str, bool], Loaded] = {}

    def load(name: str, several: bool = False) -> Loaded:
        if (name, several) not in loaded:
            loaded[name, several] = load_family(name, tmp_path_factory.mktemp("family"), several)
        return loaded[name, several]

    return load


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_one_image(load, name):
    """Token ids and logits."""
    model = load(name)
    context, images = model.context, model.pixels(1)
    inputs, features = model.inputs([QUESTIONS[0]], [images]), model.embeds(images)
    input_ids = torch.tensor([context.tokenize([(QUESTIONS[0], None)], len(features[0]))[0]])
    assert torch.equal(input_ids, inputs["input_ids"])
    logits = context.logits(context.hidden_states(input_ids, features))
    expected = context.model(**inputs).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0.0)
    assert expected.std() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_several_images(load, name):
    model = load(name, several=True)
    context, images = model.context, model.pixels(3)
    inputs = model.inputs(["What has changed?"], [images])
    logits = context.logits(context.hidden_states(inputs["input_ids"], model.embeds(images)))
    torch.testing.assert_close(logits, context.model(**inputs).logits, atol=1e-5, rtol=0.0)


@torch.no_grad()
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_of_two(load, name, side):
    """Padded on the right as in training, and on the left as in generation."""
    model = load(name)
    context, images = model.context, model.pixels(2)
    inputs = model.inputs(list(QUESTIONS), [[image] for image in images], padding_side=side)
    expected, mask = context.model(**inputs).logits, inputs["attention_mask"].bool()
    assert not mask.all()
    features = model.embeds(images)
    if side == "right":
        logits = context.logits(context.hidden_states(inputs["input_ids"], features))
        torch.testing.assert_close(logits[mask], expected[mask], atol=1e-5, rtol=0.0)
        return
    prompts = [context.tokenize([(question, None)], context.tokens_per_image)[0] for question in QUESTIONS]
    logits = context.logits(RaggedCache(context, 2, features[0].device).append(prompts, features))
    torch.testing.assert_close(logits, expected[:, -1], atol=1e-5, rtol=0.0)


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_generation(load, name):
    """Of a batch of two; an image token is never generated."""
    model = load(name)
    context, images = model.context, model.pixels(2)
    inputs = model.inputs(list(QUESTIONS), [[image] for image in images], padding_side="left")
    options = {"do_sample": False, "max_new_tokens": 10, "suppress_tokens": [context.image_token_id]}
    generated = context.model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
    prompts = [context.tokenize([(question, None)], context.tokens_per_image)[0] for question in QUESTIONS]
    answers = context.generate(prompts, model.embeds(images), 10)
    for answer, ids in zip(answers, generated.tolist(), strict=True):
        ends = [place for place, token in enumerate(ids) if token in context.stop_token_ids]
        kept = ids[: ends[0]] if ends else ids
        assert answer.text == context.tokenizer.decode(kept).strip() and answer.ended == bool(ends)
        assert kept, "an answer that ends at once shows nothing"


@torch.no_grad()
@pytest.mark.parametrize("name", ["LLaVA-1.5", "Qwen3-VL", "Gemma 3, MedGemma"])
def test_images_on_the_way_are_as_if_they_had_been_there_from_the_beginning(load, name):
    """Rows of a cache get images at different times; the model's own forward pass over each sequence has the same logits."""
    model = load(name, several=True)
    context, images = model.context, model.pixels(4)
    features, block = model.embeds(images), context.image_block(context.tokens_per_image)
    prompts = [context.tokenize([(question, None)], context.tokens_per_image)[0] for question in QUESTIONS]
    cache = RaggedCache(context, 2, torch.device("cpu"))
    cache.append(prompts, features[:2])
    cache.append([[5, 6], [7]], [])
    cache.append([[8, *block], []], [features[2]])
    last = cache.append([[9], [8, *block, 9]], [features[3]])
    sequences = [[*prompts[0], 5, 6, 8, *block, 9], [*prompts[1], 7, 8, *block, 9]]
    for row, (sequence, shown) in enumerate(zip(sequences, ([0, 2], [1, 3]), strict=True)):
        inputs = model.inputs(["?"], [[images[index] for index in shown]]) | {"input_ids": torch.tensor([sequence])}
        types = torch.tensor(model.processor.create_mm_token_type_ids([sequence]))
        inputs |= {key: types for key in inputs if key.endswith("token_type_ids")}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        expected = context.model(**inputs).logits[0, -1]
        torch.testing.assert_close(context.logits(last[row]), expected, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("name", FAMILIES)
def test_another_number_of_image_tokens_is_an_error(load, name):
    model = load(name)
    context, features = model.context, model.embeds(model.pixels(1))
    input_ids = torch.tensor([context.tokenize([("Where?", None)], context.tokens_per_image)[0]])
    for wrong in ([], [features[0][:-1]], [features[0], features[0]]):
        with pytest.raises(ArgumentError, match=f"{context.tokens_per_image} placeholders, the images"):
            context.hidden_states(input_ids, wrong)
    with pytest.raises(ArgumentError, match=f"has {context.tokens_per_image} tokens here, not 1"):
        context.tokenize([("Where?", None)], 1)


def test_images_of_any_shape_are_letterboxed(load):
    model = load("Qwen2.5-VL")
    features = model.context.encode_images([torch.rand(1, 40, 50), torch.rand(3, 90, 20)])
    assert [tuple(part.shape) for part in features] == [(4, 32)] * 2 and model.context.image_size == 64


def test_features_of_deeper_layers_stand_beside_the_first(load):
    model = load("Qwen3-VL")
    (features,) = model.embeds(model.pixels(1))
    assert features.shape == (4, 3 * 32) and model.context.width == 32


def test_paligemma_reads_one_image_and_one_question(load):
    context = load("PaliGemma 2").context
    with pytest.raises(ArgumentError, match="one question about an image"):
        context.tokenize([("Where?", "There."), ("And?", None)], context.tokens_per_image)
    with pytest.raises(ArgumentError, match="before the question alone"):
        context.image_block(context.tokens_per_image)


def test_the_family_is_read_from_the_configuration(tmp_path):
    with pytest.warns(FutureWarning, match="taken from its config.json"):
        context = VisionLanguageContext(str(qwen(tmp_path)), family="llava", image_size=56)
    assert "(qwen2_5_vl)" in context.name and context.image_size == 56


def test_models_that_cannot_be_served_are_refused_by_name(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="holds a model of type 'sam', and one of type 'image text to text'"):
        VisionLanguageContext(str(sam(tmp_path / "sam")))
    folder = llava(tmp_path / "llava")
    with monkeypatch.context() as patch:
        patch.setattr("transformers.LlavaModel.forward", lambda self, input_ids: input_ids)
        with pytest.raises(ArgumentError, match=r"\(llava\): its forward pass in transformers takes no encoded images"):
            VisionLanguageContext(str(folder))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(WeightsError, match="has no chat template"):
        VisionLanguageContext(str(folder))


@pytest.mark.parametrize("name", ["Qwen3-VL", "Gemma 3, MedGemma", "Idefics3", "LLaVA-OneVision"])
def test_other_families_are_compared_as_they_are_loaded(name, tmp_path, monkeypatch):
    """And refused by name where their logits are others, here since a layer follows the output layer that is not known."""
    folder = str(FAMILIES[name](tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        VisionLanguageContext(folder)
    monkeypatch.setattr("zoo.language.vision_language.VERIFIED", frozenset())
    with pytest.warns(UserWarning, match="is not among the tested families"):
        VisionLanguageContext(folder)
    logits = VisionLanguageContext.logits
    monkeypatch.setattr(VisionLanguageContext, "logits", lambda self, states: 1.1 * logits(self, states))
    with pytest.warns(UserWarning), pytest.raises(ArgumentError, match=r"\): its logits here are not those of its own"):
        VisionLanguageContext(folder)


def test_the_cache_of_features_depends_on_how_images_are_prepared(tmp_path):
    folder = str(qwen(tmp_path))
    prints = {VisionLanguageContext(folder, image_size=size).vision_fingerprint() for size in (56, 56, 84)}
    assert len(prints) == 2
