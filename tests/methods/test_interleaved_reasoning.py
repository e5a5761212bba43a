"""Interleaved reasoning at its smallest: every evidence mode from recipe to report, page and evidence reliance."""

import re
from pathlib import Path

import pytest
import torch

from zoo.config.recipe import read_recipe
from zoo.data.io.crops import crop
from zoo.data.traces.records import IvlRecord, Step
from zoo.decoders.evidence import EVIDENCE
from zoo.decoders.interleaved_models import SmallInterleaved
from zoo.decoders.vq_image import VQImage
from zoo.engine.evaluation import evaluate, open_evaluation
from zoo.engine.publishing import publish
from zoo.engine.training import read_log, train
from zoo.methods.interleaved_reasoning import InterleavedReasoning

TOKENIZER = "{name: vq_image, resolution: 16, codes: 16, embed_dim: 16, base_channels: 32, channel_multiplier: [1, 1, 1], res_blocks: 1}"
TINY = "optimizer: {name: adamw, lr: 3.0e-3}\ntrainer: {max_epochs: 2, enable_progress_bar: false, accelerator: cpu}\n"
TOKENIZER_RECIPE = f"""
data: {{name: chest_drr_films, size: 32, image_size: 64, output_size: 16, batch_size: 8, render_workers: 2}}
method: {{name: vq_tokenizer, tokenizer: {TOKENIZER}}}
{TINY}"""
RECIPE = f"""
init_from: tiny-tokenizer
data: {{name: chest_drr_ivl, size: 32, image_size: 64, batch_size: 8, render_workers: 2}}
method:
  name: interleaved_reasoning
  max_tokens: 160
  too_long: shorten
  max_images: 2
  decoder: {{name: small_interleaved, width: 32, layers: 2, heads: 2, max_length: 256, tokenizer: {TOKENIZER}}}
{TINY}"""
WORDS = sorted(
    set(
        "First Next Summarizing I need to analyze the heart left lung The bounding box of this area is It enlarged Clear "
        "previous analysis will generate following report A normal film Write".split()
    )
    | {*"[],.:", *map(str, range(64))}
)
RECORD = IvlRecord(
    prompt="Write the report. <image>",
    steps=[
        Step("First, I need to analyze the heart", 1, (2, 4, 20, 30), "It is enlarged."),
        Step("Next, I need to analyze the left lung", 2, (8, 8, 24, 40), "Clear."),
    ],
    report="A normal film.",
    images=[Path("film.png"), Path("heart.png"), Path("lung.png")],
)


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    tokenizer = VQImage(
        resolution=16, codes=16, embed_dim=16, base_channels=32, channel_multiplier=[1, 1, 1], res_blocks=1
    )
    return SmallInterleaved(WORDS, tokenizer, width=32, layers=2, heads=2, max_length=256).eval()


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    """A folder of cards with a tiny image tokenizer."""
    folder = tmp_path_factory.mktemp("cards")
    (folder / "vq.yaml").write_text(TOKENIZER_RECIPE)
    publish(train(read_recipe(folder / "vq.yaml"), folder / "run"), "tiny-tokenizer", folder=folder)
    return folder


def codes(decoder: SmallInterleaved, count: int = 3) -> list[torch.Tensor]:
    return list(
        decoder.vocabulary.image_ids[torch.randint(16, (count, 16), generator=torch.Generator().manual_seed(1))]
    )


def test_the_policy_for_long_traces_is_part_of_the_cache_key(decoder):
    methods = [InterleavedReasoning(decoder, "crop", too_long=policy, max_tokens=80) for policy in ("drop", "shorten")]
    assert methods[0].sequence_fingerprint() != methods[1].sequence_fingerprint()
    assert methods[0].sequence(RECORD, codes(decoder)) is None
    assert methods[1].sequence(RECORD, codes(decoder))[0][-1] == decoder.vocabulary.eos_token_id


@pytest.mark.parametrize("mode", list(EVIDENCE))
def test_every_mode_trains_reports_and_draws(tmp_path, cards, monkeypatch, mode):
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(cards))
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    folder = train(read_recipe(tmp_path / "tiny.yaml", [f"method.evidence={mode}"]), tmp_path / "run")
    losses = read_log(folder)["train_cross_entropy"].dropna().tolist()
    assert losses[-1] < losses[0]
    subject = open_evaluation(folder)
    subject.data.counts["test"] = 8  # type: ignore[attr-defined]
    measured = evaluate(subject, progress=False)
    assert {"clinical_f1", "bleu4", "rouge_l", "cider"} <= set(measured)
    assert ("region_iou" in measured) == (mode in ("generated", "crop", "box"))
    assert ("evidence_reliance" in measured) == (mode in ("generated", "crop"))
    image = subject.data.split("test")[0]["images"][0]
    prediction = subject.method.predict_image(image)
    page = prediction.save(tmp_path, "page").read_text()
    assert page.count("<img") >= 1 and "Report" in page and not re.search(r'src="(?!data:)', page)


def test_given_evidence_is_the_true_pixels_of_the_named_box(decoder, monkeypatch):
    """The model is made to name a box; what it is then shown are the codes of those pixels."""
    method = InterleavedReasoning(decoder, evidence="crop", max_tokens=200).eval()
    film = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(3))
    box = (8, 16, 40, 56)
    asked = {}

    def scripted(model, prompts, settings, provide_image=None):
        said = method.writer.encode_text(
            f"First, I need to analyze the heart The bounding box of this area is [{', '.join(map(str, box))}] ."
        )
        asked["ids"] = provide_image(0, [*said, decoder.vocabulary.boi_token_id])
        asked["lost"] = provide_image(0, [decoder.vocabulary.boi_token_id])
        return [torch.cat([prompts[0], torch.tensor([decoder.vocabulary.eos_token_id])])]

    monkeypatch.setattr("zoo.methods.interleaved_reasoning.generate", scripted)
    method.generate([film])
    assert torch.equal(asked["ids"], method.image_ids([crop(film, box)])[0])
    assert torch.equal(asked["lost"], method.image_ids([film])[0]), "without a box the whole film is shown"


@pytest.mark.parametrize(("reads", "reliance"), [(False, 0.0), (True, 1.0)])
def test_evidence_reliance_of_a_model_that_ignores_its_evidence_is_0(decoder, monkeypatch, reads, reliance):
    """A scripted model that says a finding by the code of the image before, or always the same."""
    method = InterleavedReasoning(decoder, evidence="crop", max_tokens=200).eval()

    def scripted(model, prompts, settings, provide_image=None):
        last = [int(decoder.vocabulary.codes(prompt).max()) if reads else 0 for prompt in prompts]
        return [torch.cat([prompt, torch.tensor([code])]) for prompt, code in zip(prompts, last, strict=True)]

    monkeypatch.setattr("zoo.methods.interleaved_reasoning.generate", scripted)
    monkeypatch.setattr(
        method, "image_ids", lambda images: decoder.vocabulary.image_ids[: len(images), None].expand(-1, 16)
    )
    monkeypatch.setattr(method, "findings_stated", lambda ids: {int(ids[0])})
    images = [torch.rand(1, 32, 32)] * 3
    changes = method.evidence_changes({"record": [RECORD] * 2, "images": [images] * 2, "swap": [(0, images[0]), None]})
    assert changes[0] == reliance and changes[1] != changes[1], "NaN where nothing was tried"


def test_lora_is_on_query_key_and_value_and_leaves_the_base_as_it_was(decoder):
    before = decoder.fingerprint
    method = InterleavedReasoning(decoder, evidence="text", lora_rank=4)
    trained = {name for name, value in method.named_parameters() if value.requires_grad}
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trained if "lora_" in name} == {
        "q_proj",
        "k_proj",
        "v_proj",
    }
    assert all("lora_" in name or name.startswith(("decoder.auxiliary", "decoder.places")) for name in trained)
    assert before() == decoder.fingerprint()
