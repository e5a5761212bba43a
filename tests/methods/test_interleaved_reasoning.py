"""Interleaved reasoning at its smallest: every evidence mode from recipe to report, page and evidence reliance."""

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file
from transformers import get_linear_schedule_with_warmup

from tests.small_recipes import write_recipe
from tests.tiny_models import anole, ivl_traces
from tests.tiny_trace import RECORD, WORDS
from zoo.config.building import build
from zoo.config.recipe import read_recipe
from zoo.data.chest_drr.text.labels import LABELER
from zoo.data.io.crops import crop
from zoo.data.traces.datasets import IvlJsonl
from zoo.data.traces.records import SUMMARY
from zoo.decoders.evidence import EVIDENCE
from zoo.decoders.interleaved_models import Anole, SmallInterleaved
from zoo.decoders.vq_image import VQImage
from zoo.engine.assembly import assemble
from zoo.engine.evaluation import evaluate, open_evaluation
from zoo.engine.publishing import publish
from zoo.engine.training import read_log, train
from zoo.errors import ArgumentError
from zoo.methods.interleaved_reasoning import InterleavedReasoning
from zoo.pretrained import canonical_name

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
  box_frame: 64
  max_tokens: 160
  too_long: shorten
  max_images: 2
  decoder: {{name: small_interleaved, width: 32, layers: 2, heads: 2, max_length: 256, tokenizer: {TOKENIZER}}}
{TINY}"""


def build_decoder() -> SmallInterleaved:
    torch.manual_seed(0)
    tokenizer = VQImage(
        resolution=16, codes=16, embed_dim=16, base_channels=32, channel_multiplier=[1, 1, 1], res_blocks=1
    )
    return SmallInterleaved(WORDS, tokenizer, width=32, layers=2, heads=2, max_length=256).eval()


@pytest.fixture(scope="module")
def decoder():
    return build_decoder()


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    """A folder of cards with a tiny image tokenizer."""
    folder = tmp_path_factory.mktemp("cards")
    (folder / "vq.yaml").write_text(TOKENIZER_RECIPE)
    publish(train(read_recipe(folder / "vq.yaml"), folder / "run"), "tiny-tokenizer", folder=folder)
    return folder


def image_ids_of(decoder: SmallInterleaved, count: int = 3) -> list[torch.Tensor]:
    codes = torch.randint(16, (count, 16), generator=torch.Generator().manual_seed(1))
    return list(decoder.vocabulary.image_ids[codes])


def test_the_policy_for_long_traces_is_part_of_the_cache_key(decoder):
    methods = [
        InterleavedReasoning(decoder, "crop", too_long=policy, max_tokens=80, box_frame="pixels")
        for policy in ("drop", "shorten")
    ]
    assert methods[0].sequence_fingerprint() != methods[1].sequence_fingerprint()
    assert methods[0].encode_record(RECORD, image_ids_of(decoder)) is None
    assert methods[1].encode_record(RECORD, image_ids_of(decoder))[0][-1] == decoder.vocabulary.eos_token_id


@pytest.mark.parametrize("mode", list(EVIDENCE))
def test_every_mode_trains_predicts_and_is_evaluated(tmp_path, cards, monkeypatch, mode):
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(cards))
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    folder = train(read_recipe(tmp_path / "tiny.yaml", [f"method.evidence={mode}"]), tmp_path / "run")
    losses = read_log(folder)["train_cross_entropy"].dropna().tolist()
    assert losses[-1] < losses[0]
    evaluation = open_evaluation(folder)
    evaluation.data.counts["test"] = 8  # type: ignore[attr-defined]
    measured = evaluate(evaluation, progress=False)
    assert {"clinical_f1", "bleu4", "rouge_l", "cider"} <= set(measured)
    assert ("region_iou" in measured) == (mode in ("generated", "crop", "box"))
    assert ("evidence_reliance" in measured) == (mode in ("generated", "crop"))
    image = evaluation.data.split("test")[0]["images"][0]
    prediction = evaluation.method.predict_image(image)
    page = prediction.save(tmp_path, "page").read_text()
    assert page.count("<img") >= 1 and "Report" in page and not re.search(r'src="(?!data:)', page)


def test_provided_evidence_is_the_crop_of_the_named_box(decoder, monkeypatch):
    """A scripted model names a box, and is provided with the codes of its pixels."""
    method = InterleavedReasoning(decoder, evidence="crop", box_frame="pixels", max_tokens=200).eval()
    image = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(3))
    box = (8, 16, 40, 56)
    provided = {}

    def scripted(model, prompts, settings, provide_image=None):
        named = method.writer.encode_text(
            f"First, I need to analyze the heart The bounding box of this area is [{', '.join(map(str, box))}] ."
        )
        provided["named"] = provide_image(0, [*named, decoder.vocabulary.boi_token_id])
        provided["unnamed"] = provide_image(0, [decoder.vocabulary.boi_token_id])
        return [torch.cat([prompts[0], torch.tensor([decoder.vocabulary.eos_token_id])])]

    monkeypatch.setattr("zoo.methods.interleaved_reasoning.generate", scripted)
    method.generate([image])
    assert torch.equal(provided["named"], method.tokenize_images([crop(image, box)])[0])
    assert torch.equal(provided["unnamed"], method.tokenize_images([image])[0]), "the whole image if no box is named"


@pytest.mark.parametrize(("reads_evidence", "reliance"), [(False, 0.0), (True, 1.0)])
def test_a_model_that_ignores_its_evidence_has_an_evidence_reliance_of_0(
    decoder, monkeypatch, reads_evidence, reliance
):
    """A scripted model whose statement is the code of the last image, or always the same."""
    method = InterleavedReasoning(decoder, evidence="crop", box_frame="pixels", max_tokens=200).eval()

    def scripted(model, prompts, settings, provide_image=None):
        codes = [int(decoder.vocabulary.codes(prompt).max()) if reads_evidence else 0 for prompt in prompts]
        return [torch.cat([prompt, torch.tensor([code])]) for prompt, code in zip(prompts, codes, strict=True)]

    monkeypatch.setattr("zoo.methods.interleaved_reasoning.generate", scripted)
    monkeypatch.setattr(
        method, "tokenize_images", lambda images: decoder.vocabulary.image_ids[: len(images), None].expand(-1, 16)
    )
    monkeypatch.setattr(method, "findings_stated", lambda ids: {int(ids[0])})
    images = [torch.rand(1, 32, 32)] * 3
    changes = method.evidence_changes({"record": [RECORD] * 2, "images": [images] * 2, "swap": [(0, images[0]), None]})
    assert changes[0] == reliance and changes[1] != changes[1], "NaN without a swap"


def write_traces(folder: Path, reports: dict[str, list[list[str]] | None]) -> IvlJsonl:
    """Traces without steps: reports with their findings, where the record has them."""
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(folder / "film.png")
    lines = [
        json.dumps(
            {"prompt": "Describe the film. <image>", "response": report, "images": ["film.png"]}
            | ({} if findings is None else {"findings": findings})
        )
        for report, findings in reports.items()
    ]
    (folder / "traces.jsonl").write_text("\n".join(lines))
    return IvlJsonl(*[str(folder / "traces.jsonl")] * 3)


def outputs_for(
    method: InterleavedReasoning, data: IvlJsonl, reports: list[str], monkeypatch
) -> dict[str, torch.Tensor]:
    """The outputs of an evaluation step in which the model writes ``reports``."""
    generated = [{"steps": [], "report": report, "images": []} for report in reports]
    monkeypatch.setattr(method, "generate", lambda images, prompts: generated)
    method.use_metadata(data.metadata())
    (batch,) = data.test_dataloader()
    return method.complete_outputs(method.evaluation_step(batch))


def test_real_traces_are_scored_by_their_own_findings(tmp_path, decoder, monkeypatch):
    """Findings that chest_drr does not have count; those that only chest_drr has do not."""
    data = write_traces(
        tmp_path,
        {
            "Left rib fracture.": [["rib fracture", "left"]],
            "Pulmonary oedema and a pleural effusion.": [["pulmonary oedema", ""]],
            "A rib fracture on the right.": None,
        },
    )
    method = InterleavedReasoning(decoder, evidence="none", max_tokens=200).eval()
    reports = ["Left rib fracture and cardiomegaly.", "Pulmonary oedema.", "Left rib fracture."]
    outputs = outputs_for(method, data, reports, monkeypatch)
    assert data.metadata()["labeler"].labels == (("pulmonary oedema", ""), ("rib fracture", "left"))
    assert outputs["truth"].tolist() == [[0, 1], [1, 0], [0, 0]]
    assert outputs["stated"].tolist() == [[0, 1], [1, 0], [0, 1]]
    metrics = method.metrics()
    assert metrics["clinical_f1"](outputs) == pytest.approx(2 * 2 / (3 + 2))
    by_chest_drr = [LABELER.label(report) for report in reports]
    assert by_chest_drr == [{("cardiomegaly", "")}, set(), set()], "what the rendered data's phrases would have seen"


def test_traces_without_findings_are_not_scored_by_any(tmp_path, decoder, monkeypatch):
    data = write_traces(tmp_path, {"A small left pleural effusion.": None})
    method = InterleavedReasoning(decoder, evidence="none", max_tokens=200).eval()
    outputs = outputs_for(method, data, ["A pleural effusion."], monkeypatch)
    assert "truth" not in outputs
    assert {"bleu4", "rouge_l", "cider", "repeated_sentences"} == set(method.metrics())


def test_the_prompt_is_that_of_the_dataset(tmp_path, cards, monkeypatch):
    """A run keeps it, so that it predicts without its data."""
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(cards))
    write_traces(tmp_path, {"A normal film.": None})
    file = tmp_path / "traces.jsonl"
    data = f"data: {{name: ivl_jsonl, train: {file}, val: {file}, test: {file}}}"
    recipe = re.sub(r"data: .*", lambda _: data, RECIPE)
    recipe = recipe.replace("name: small_interleaved,", f"name: small_interleaved, words: {json.dumps(WORDS)},")
    (tmp_path / "r.yaml").write_text(recipe)
    assembly = assemble(read_recipe(tmp_path / "r.yaml", ["method.evidence=none"]))
    assert assembly.recipe["method"]["prompt"] == assembly.method.prompt == "Describe the film. <image>"


@torch.no_grad()
def test_lora_is_on_query_key_and_value_and_starts_as_the_base():
    decoder, input_ids = build_decoder(), torch.tensor([[0, 40, 41, 42]])
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    logits = decoder(input_ids)
    method = InterleavedReasoning(decoder, evidence="text", lora_rank=4).eval()
    trained = {name for name, value in method.named_parameters() if value.requires_grad}
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trained if "lora_" in name}
    assert adapted == {"q_proj", "k_proj", "v_proj"}
    assert all("lora_" in name or name.startswith(("decoder.auxiliary", "decoder.places")) for name in trained)
    after = {canonical_name(name): value for name, value in decoder.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())
    torch.testing.assert_close(method(input_ids), logits)


def stored_embeddings(file: Path) -> torch.Tensor:
    (embeddings,) = [value for name, value in load_file(file).items() if name.endswith("embed_tokens.weight")]
    return embeddings


def test_a_card_is_fine_tuned_on_records_with_other_words(tmp_path, monkeypatch):
    """Words of the card keep their ids and embeddings; other words and numbers become pieces, with rows of their own."""
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "cards"))
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    ivl_traces(tmp_path / "ivl")
    recipe = write_recipe(tmp_path, "interleaved_reasoning small crop")
    run = train(read_recipe(recipe), tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(
            InterleavedReasoning,
            "generate",
            lambda self, images, prompts=None: [{"steps": [], "report": "Clear.", "images": []}] * len(images),
        )
        patch.setattr(InterleavedReasoning, "evidence_changes", lambda self, batch: [0.0] * len(batch["record"]))
        publish(run, "small", folder=tmp_path / "cards", license="mit")
    ivl_traces(tmp_path / "own", side=80)
    file = tmp_path / "own" / "data.jsonl"
    file.write_text(file.read_text().replace("pleural effusion", "osteopenia"))
    content = read_recipe(recipe).content
    del content["method"]["decoder"]["words"]
    own = ["init_from=small", *(f"data.{split}={file}" for split in ("train", "val", "test")), "method.max_tokens=400"]
    (tmp_path / "own.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(content)))
    as_it_is = open_evaluation("small", [f"data.{split}={file}" for split in ("train", "val", "test")]).method
    rows = as_it_is.decoder.language.get_input_embeddings().weight
    assert torch.equal(rows, stored_embeddings(tmp_path / "cards" / "small" / "model.safetensors")), "none are added"
    mine = read_recipe(tmp_path / "own.yaml", own)
    assembly = assemble(mine)
    tokenizer, decoder = assembly.method.tokenizer, assembly.method.decoder
    assert tokenizer.unk_token_id not in tokenizer.encode("Left osteopenia 1379")
    embeddings = stored_embeddings(tmp_path / "cards" / "small" / "model.safetensors")
    loaded = decoder.language.get_input_embeddings().weight
    assert len(loaded) > len(embeddings) and torch.equal(loaded[: len(embeddings)], embeddings)
    tuned = train(mine, tmp_path / "tuned")
    assert "pieces" in read_recipe(tuned / "recipe.yaml", record=True)["method"]["decoder"]
    moved = stored_embeddings(tuned / "model.safetensors")
    osteopenia = tokenizer.encode("osteopenia")
    assert not torch.equal(moved[osteopenia], loaded[osteopenia])


def test_a_tokenizer_needs_words_or_pieces(tmp_path):
    ivl_traces(tmp_path / "ivl")
    recipe = write_recipe(tmp_path, "interleaved_reasoning small crop")
    with pytest.raises(ArgumentError, match="needs words or pieces"):
        assemble(read_recipe(recipe, ["method.decoder.words=[]", "method.decoder.pieces=[]"]))


def test_boxes_follow_the_centre_crop_of_anole(tmp_path, monkeypatch):
    """Of a film of 16 x 40 pixels the columns 12 to 27 are seen: a box across the edge is clipped, one beyond it left out."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    Image.fromarray(np.zeros((16, 40), np.uint8)).save(tmp_path / "film.png")
    steps = " ".join(
        f"Next, I need to analyze the {region} <image> The bounding box of this area is {box} . Clear."
        for region, box in (("heart", [0, 2, 20, 14]), ("lung", [0, 2, 8, 14]))
    )
    record = {"prompt": "Report. <image>", "response": f"{steps} {SUMMARY} Clear.", "images": ["film.png"] * 3}
    (tmp_path / "traces.jsonl").write_text(json.dumps(record))
    data = IvlJsonl(*[str(tmp_path / "traces.jsonl")] * 3)
    folder, texts = str(anole(tmp_path / "anole")), {}
    for transform, left_out in (("center_crop", ["train", "val"]), ("squash", [])):
        method = InterleavedReasoning(
            Anole(folder, image_transform=transform), "box", box_frame="pixels", max_tokens=1000
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            data.tokenize(method)
        warned = [str(warning.message) for warning in caught if "box" in str(warning.message)]
        assert [message.split(":")[0] for message in warned] == left_out
        assert all("1 box outside of what the model sees" in message for message in warned)
        texts[transform] = method.tokenizer.decode(data.split("train")[0]["input_ids"])
    assert "area is [12, 2, 20, 14]" in texts["center_crop"] and texts["center_crop"].count("bounding box") == 1
    assert "area is [0, 2, 20, 14]" in texts["squash"] and "area is [0, 2, 8, 14]" in texts["squash"]


def test_anole_generates_as_its_recipe_says(tmp_path, monkeypatch):
    """The published recipe samples with guidance up to a length of its own; a method by itself is greedy."""
    arguments = read_recipe("interleaved_reasoning/anole_7b")["method"]
    names = ("max_tokens", "max_length", "greedy", "guidance", "max_images")
    method = InterleavedReasoning(
        Anole(str(anole(tmp_path))), prompt="<image>", **{name: arguments[name] for name in names}
    )
    used = []

    def scripted(model, prompts, settings, provide_image=None):
        used.append((settings, len(prompts[0])))
        return [prompt.clone() for prompt in prompts]

    monkeypatch.setattr("zoo.methods.interleaved_reasoning.generate", scripted)
    method.generate([torch.rand(1, 16, 24)])
    ((settings, prompt_length),) = used
    assert (settings.greedy, settings.guidance, settings.negative_scale) == (False, "normal", 0.0)
    assert (settings.top_p, settings.image_top_p, settings.top_k) == (0.9, 1.0, 50)
    assert settings.max_images == arguments["max_images"] == 4, "not one more"
    assert settings.max_new_tokens + prompt_length == 6144 and method.max_tokens == 5119 and method.too_long == "drop"


def test_the_published_schedule_is_transformers_default():
    """Linear to zero over all steps, without warm-up; the batch is that of two GPUs with a trace each."""
    recipe = read_recipe("interleaved_reasoning/anole_7b")

    def rates(schedule: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe["optimizer"]["lr"])
        scheduler = schedule(optimizer)
        seen = []
        for _ in range(11):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return seen

    ours = rates(lambda optimizer: build("scheduler", recipe["scheduler"], optimizer=optimizer, total_steps=10))
    assert ours == pytest.approx(rates(lambda optimizer: get_linear_schedule_with_warmup(optimizer, 0, 10)), abs=1e-15)
    assert ours[0] == 1e-5 and ours[5] == pytest.approx(5e-6) and ours[-1] == 0.0
    assert recipe["data"]["batch_size"] * recipe["trainer"]["accumulate_grad_batches"] == 2
