"""Interleaved reasoning on vision-language models at its smallest: modes, labels, crops at their own resolution, padding."""

import re

import pytest
import torch

from tests.tiny_trace import RECORD, WORDS
from zoo.config.recipe import read_recipe
from zoo.constants import IGNORE_INDEX
from zoo.data.io.crops import crop
from zoo.data.io.letterbox import letterbox
from zoo.encoders.clip import SmallClip
from zoo.encoders.vision import ClipVision
from zoo.engine.evaluation import evaluate, open_evaluation
from zoo.engine.training import read_log, train
from zoo.errors import ArgumentError
from zoo.language.causal_lm import SmallCausalLM
from zoo.language.global_context import CausalContext
from zoo.language.interleaved_generation import Continuation
from zoo.methods.interleaved_vision_language import InterleavedVisionLanguage

RECIPE = """
data: {name: chest_drr_ivl, size: 32, image_size: 64, search: systematic, batch_size: 8, eval_batch_size: 8, render_workers: 2}
method:
  name: interleaved_vision_language
  film_size: 32
  box_frame: 64
  max_tokens: 700
  max_new_tokens: 60
  context:
    name: global_context
    vision:
      name: clip_vision
      clip: {name: small_clip, image_size: 32, patch_size: 8, width: 64, layers: 2, text_width: 32, text_layers: 2, embedding: 32}
    model: {name: small_causal_lm, width: 32, layers: 2, heads: 2}
optimizer: {name: adamw, lr: 3.0e-3}
trainer: {max_epochs: 1, enable_progress_bar: false, accelerator: cpu}
"""


def build_method(evidence="crop", **options) -> InterleavedVisionLanguage:
    torch.manual_seed(0)
    sizes = {"width": 64, "layers": 2, "text_width": 32, "text_layers": 2, "embedding": 32}
    vision = ClipVision(SmallClip(image_size=32, patch_size=8, **sizes))
    context = CausalContext(vision, SmallCausalLM(WORDS, width=32, layers=2, heads=2, max_length=512), merge=2)
    options = {"max_tokens": 400, "max_new_tokens": 120, "box_frame": "pixels", **options}
    return InterleavedVisionLanguage(context, evidence, **options).eval()


@pytest.fixture(scope="module")
def method():
    return build_method()


def image(seed: int, side: int = 64) -> torch.Tensor:
    return torch.rand(1, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", ["none", "text", "box", "crop"])
def test_every_mode_trains_predicts_and_is_evaluated(tmp_path, mode):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    folder = train(read_recipe(tmp_path / "tiny.yaml", [f"method.evidence={mode}"]), tmp_path / "run")
    losses = read_log(folder)["train_loss"].dropna().tolist()
    assert losses[-1] < losses[0]
    evaluation = open_evaluation(folder)
    evaluation.data.counts["test"] = 8  # type: ignore[attr-defined]
    measured = evaluate(evaluation, progress=False)
    assert {"clinical_f1", "clinical_f1_small", "bleu4", "rouge_l", "cider", "repeated_sentences"} <= set(measured)
    assert ("region_iou" in measured) == (mode in ("crop", "box"))
    assert ("evidence_reliance" in measured) == (mode == "crop")
    prediction = evaluation.method.predict_image(evaluation.data.split("test")[0]["images"][0])
    page = prediction.save(tmp_path, "page").read_text()
    assert page.count("<img") >= 1 and "Report" in page and not re.search(r'src="(?!data:)', page)


@pytest.mark.parametrize(("mode", "read"), [("none", [0]), ("text", [0]), ("box", [0]), ("crop", [0, 1, 2])])
def test_labels_are_the_text_of_the_response_and_no_image_token(mode, read):
    method = build_method(mode)
    tokens = method.encode_record(RECORD, [])
    tokenizer, image_token = method.context.tokenizer, method.context.image_token_id
    assert list(tokens.images) == read
    assert tokens.input_ids.count(image_token) == len(read) * method.context.tokens_per_image
    assert all(label in (token, IGNORE_INDEX) for token, label in zip(*tokens[:2], strict=True))
    learned = tokenizer.decode([label for label in tokens.labels if label != IGNORE_INDEX])
    assert image_token not in tokens.labels and "A normal film. </s>" in learned and "USER" not in learned
    assert ("It is enlarged." in learned) == (mode != "none")
    assert ("[2, 4, 20, 30]" in learned) == (mode in ("box", "crop"))
    assert method.sequence_fingerprint() != build_method("box" if mode == "crop" else "crop").sequence_fingerprint()


def test_the_trace_that_was_written_is_parsed_again(method):
    """And an image is due exactly where the trace has one."""
    tokens = method.encode_record(RECORD, [])
    start = next(index for index, label in enumerate(tokens.labels) if label != IGNORE_INDEX)
    texts, current = [], []
    for token in tokens.input_ids[start:-1]:
        text = method.tokenizer.decode(current)
        if token == method.context.image_token_id:
            assert not current or method.writer.is_image_due(text)
            texts, current = ([*texts, text], []) if current else (texts, [])
        else:
            assert not method.writer.is_image_due(text)
            current.append(token)
    steps, report = method.writer.parse([*texts, method.tokenizer.decode(current)])
    assert report == RECORD.report and [step.image for step in steps] == [0, 1]
    assert [(s.region, s.box, s.statement) for s in steps] == [(s.region, s.box, s.statement) for s in RECORD.steps]


def test_a_crop_enters_at_its_own_resolution_and_the_film_reduced():
    method = build_method(film_size=16)
    fine = (torch.arange(64) % 2).float().expand(1, 64, 64)  # stripes of one pixel, gone at a quarter of the size
    film, close = (
        method.prepare_image(fine, True).float(),
        method.prepare_image(crop(fine, (0, 0, 20, 20)), False).float(),
    )
    assert film.shape == close.shape == (1, 32, 32)
    assert film[:, 8:-8, 8:-8].std() < 10 < 60 < close.std()
    assert torch.equal(close, (letterbox(crop(fine, (0, 0, 20, 20)), 32)[:1] * 255).round())


def test_generation_is_given_the_crop_of_the_box_it_names(monkeypatch):
    """A malformed box gives the whole film, as close as a crop; there are at most ``max_images``."""
    method, films, provided = build_method(max_images=1, film_size=16), [image(1), image(2, 48)], []
    opening = "First, I need to analyze the heart"
    named = f"{opening} The bounding box of this area is [8, 16, 40, 56] ."
    malformed = f"{opening} The bounding box of this area is [9, 9, 9] ."

    def scripted(context, prompts, embeds, max_new_tokens, images):
        assert not images.is_due(0, opening) and images.is_due(0, named) and images.is_due(1, malformed)
        provided.extend(images.provide({0: named, 1: malformed}))
        assert not images.is_due(0, named), "it has had its image"
        return [Continuation(texts=[text, "Clear."]) for text in (named, malformed)]

    monkeypatch.setattr("zoo.methods.interleaved_vision_language.generate_interleaved", scripted)
    results = method.generate(films)
    assert [result["images"] for result in results] == [[(8, 16, 40, 56)], [(0, 0, 48, 48)]]
    expected = method.image_embeds([crop(films[0], (8, 16, 40, 56)), films[1]], [False, False])
    assert all(torch.equal(one, other) for one, other in zip(provided, expected, strict=True))
    evidence = method.report_of(films[0], results[0]).evidence
    assert torch.equal(evidence[0], crop(films[0], (8, 16, 40, 56))[0])


@pytest.mark.parametrize(("reads_evidence", "reliance"), [(False, 0.0), (True, 1.0)])
def test_a_model_that_ignores_its_evidence_has_an_evidence_reliance_of_0(method, monkeypatch, reads_evidence, reliance):
    """A scripted model that states the mean of its last image's embeddings, or always the same."""

    def scripted(context, prompts, embeds, max_new_tokens):
        assert all(p.count(context.image_token_id) == len(e) for p, e in zip(prompts, embeds, strict=True))
        last = [float(item[-context.tokens_per_image :].mean()) if reads_evidence else 0.0 for item in embeds]
        return [Continuation(texts=[str(value)]) for value in last]

    monkeypatch.setattr("zoo.methods.interleaved_vision_language.generate_interleaved", scripted)
    images = [image(seed) for seed in range(3)]
    batch = {"record": [RECORD] * 2, "images": [images] * 2, "swap": [(1, image(7)), None]}
    changes = method.evidence_changes(batch)
    assert changes[0] == reliance and changes[1] != changes[1], "NaN without a swap"
    batch["swap"] = [(1, images[2]), None]
    assert method.evidence_changes(batch)[0] == 0.0, "the evidence of step 1 is image 2"


def training_batch(
    method: InterleavedVisionLanguage, tokens: list, inputs: list[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Encoded records, padded on the right."""
    length = max(len(item.input_ids) for item in tokens)
    pad = lambda row, value: list(row) + [value] * (length - len(row))  # noqa: E731
    labels = torch.tensor([pad(item.labels, IGNORE_INDEX) for item in tokens])
    rows, columns = (labels != IGNORE_INDEX).nonzero(as_tuple=True)
    return {
        "input_ids": torch.tensor([pad(item.input_ids, method.pad_token_id) for item in tokens]),
        "labels": labels,
        "label_batch_idx": rows,
        "label_token_idx": columns,
        "image_inputs": torch.stack([inputs[image] for item in tokens for image in item.images]),
    }


RECORDS = [RECORD, RECORD.__class__(RECORD.prompt, RECORD.steps[:1], RECORD.report, RECORD.images)]


@torch.no_grad()
def test_padding_changes_no_loss(method):
    """A batch padded on the right has the loss of its samples."""
    tokens = [method.encode_record(record, []) for record in RECORDS]
    inputs = [method.encode_images([image(seed)], [True])[0] for seed in range(3)]
    counts = [sum(label != IGNORE_INDEX for label in item.labels) for item in tokens]
    alone = [float(method.losses(training_batch(method, [item], inputs))["loss"]) for item in tokens]
    both = float(method.losses(training_batch(method, tokens, inputs))["loss"])
    assert both == pytest.approx(sum(a * n for a, n in zip(alone, counts, strict=True)) / sum(counts), abs=1e-5)


@torch.no_grad()
def test_image_dropout_hides_all_images_of_a_sequence_in_training_alone(monkeypatch):
    method = build_method(image_dropout=0.5)
    tokens = [method.encode_record(record, []) for record in RECORDS]
    inputs = [method.encode_images([image(seed)], [True])[0] for seed in range(3)]
    monkeypatch.setattr(torch, "rand", lambda count, **_: torch.tensor([0.4, 0.6][:count]))

    def hidden_states(shown: list[torch.Tensor], training: bool) -> torch.Tensor:
        batch = training_batch(method, tokens, shown)
        return method.train(training)(batch["input_ids"], batch["image_inputs"])

    for changed, item in enumerate(inputs[: len(tokens[1].images)]):
        others = [torch.zeros_like(item) if index == changed else own for index, own in enumerate(inputs)]
        for training in (True, False):
            own, other = hidden_states(inputs, training), hidden_states(others, training)
            assert torch.equal(own[0], other[0]) is training, "hidden"
            assert not torch.equal(own[1], other[1]), "seen"


def test_cached_pixels_and_features_are_the_same_images():
    """Features are those of the pixels, as in generation, up to the cache's float16."""
    features, pixels = build_method(), build_method(train_vision=True, image_cache="pixels")
    images, whole = [image(1), image(2, 48)], [True, False]
    encoded = pixels.encode_images(images, whole)
    assert encoded.dtype == torch.uint8 and encoded.shape == (2, 1, 32, 32)
    torch.testing.assert_close(features.image_features(encoded), features.encode_images(images, whole))
    assert features.image_fingerprint() != pixels.image_fingerprint() == pixels.image_fingerprint()


def test_what_trains():
    whole, lora = build_method(), build_method(lora_rank=2)
    vision = build_method(train_vision=True, image_cache="pixels")
    names = {m: {name for name, p in m.named_parameters() if p.requires_grad} for m in (whole, lora, vision)}
    assert not any("vision" in name for name in names[whole]) and any("vision" in name for name in names[vision])
    assert all("lora_" in name or "projector" in name for name in names[lora])
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in names[lora] if "lora_" in name}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    vision.train().losses(vision.example_batch())["loss"].backward()
    assert any(p.grad is not None for name, p in vision.named_parameters() if "context.vision" in name)
    with pytest.raises(ArgumentError, match="image_cache: pixels"):
        build_method(train_vision=True)
    with pytest.raises(ArgumentError, match="no projections named query"):
        build_method(lora_rank=2, lora_targets=["query"])


def test_a_prompt_has_one_image(method):
    with pytest.raises(ArgumentError, match="must have one <image>"):
        method.writer.encode_prompt("Compare. <image> <image>", [])
