"""Films of any size: text names the same boxes on each, and everything outside of the text has pixels of the film itself."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.tiny_trace import RECORD, WORDS
from zoo.cards.store import read_card
from zoo.config.recipe import list_recipes, read_recipe
from zoo.data.io.images import read_image
from zoo.data.samples import decode_sample
from zoo.data.traces.box_frames import BoxFrameName
from zoo.data.traces.records import IMAGE_PLACEHOLDER, Box, IvlRecord
from zoo.decoders.evidence import step_texts
from zoo.decoders.interleaved_models import SmallInterleaved
from zoo.decoders.vq_image import VQImage
from zoo.encoders.clip import SmallClip
from zoo.encoders.vision import ClipVision
from zoo.engine.loading import load
from zoo.errors import ArgumentError
from zoo.language.causal_lm import SmallCausalLM
from zoo.language.global_context import CausalContext
from zoo.language.interleaved_generation import Continuation
from zoo.methods.interleaved_reasoning import InterleavedReasoning
from zoo.methods.interleaved_vision_language import InterleavedVisionLanguage
from zoo.methods.report_generation import ReportGeneration

FILM = (torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
BOX = (8, 16, 40, 56)


def test_every_recipe_states_the_frame_of_its_boxes():
    """Anole's is the official code's, the film's pixels; rendered films have that of their size, so that text is as it was."""
    names = [name for name in list_recipes() if name.startswith("interleaved_reasoning/")]
    assert len(names) >= 26
    for name in names:
        recipe = read_recipe(name)
        frame = recipe["method"].get("box_frame")
        assert frame == "pixels" if "anole" in name else type(frame) is int, name
        assert "chest_drr" not in name or frame == recipe["data"]["image_size"], name
    for card in Path("checkpoints").glob("interleaved-*"):
        recipe = read_card(card).recipe()
        assert recipe["method"]["box_frame"] == recipe["data"]["image_size"] == (512 if "-vl-" in card.name else 256)


def decoder_method(evidence: str, frame: BoxFrameName) -> InterleavedReasoning:
    torch.manual_seed(0)
    options = {"embed_dim": 16, "base_channels": 32, "channel_multiplier": [1, 1, 1], "res_blocks": 1}
    tokenizer = VQImage(resolution=16, codes=16, **options)
    decoder = SmallInterleaved(WORDS, tokenizer, width=32, layers=2, heads=2, max_length=512)
    return InterleavedReasoning(decoder.eval(), evidence, box_frame=frame, max_tokens=300).eval()


def context_method(evidence: str, frame: BoxFrameName) -> InterleavedVisionLanguage:
    torch.manual_seed(0)
    sizes = {"width": 64, "layers": 2, "text_width": 32, "text_layers": 2, "embedding": 32}
    vision = ClipVision(SmallClip(image_size=32, patch_size=8, **sizes))
    context = CausalContext(vision, SmallCausalLM(WORDS, width=32, layers=2, heads=2, max_length=512), merge=2)
    return InterleavedVisionLanguage(context, evidence, box_frame=frame, max_tokens=400).eval()


METHODS = [
    *((decoder_method, mode) for mode in ("crop", "box", "generated")),
    *((context_method, mode) for mode in ("crop", "box")),
]


def enlarged(image: torch.Tensor, factor: int) -> torch.Tensor:
    return image.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def trace_of_size(folder: Path, factor: int) -> IvlRecord:
    """A trace of one step on the film, all of it enlarged."""
    path = folder / f"film-{factor}.png"
    Image.fromarray((enlarged(FILM, factor)[0] * 255).round().byte().numpy()).save(path)
    box = tuple(factor * edge for edge in BOX)
    step = replace(RECORD.steps[0], box=box)
    return replace(RECORD, steps=[step], images=[path, path], regions={step.region: box})


def generated(method: ReportGeneration, film: torch.Tensor, monkeypatch, text_box: Box) -> tuple[dict, list]:
    """What comes of a film where the model names ``text_box``, and the crops that it is given."""
    texts, crops = step_texts(replace(RECORD.steps[0], box=text_box), method.writer.mode), []
    with monkeypatch.context() as patch:
        if isinstance(method, InterleavedReasoning):
            _script_decoder(method, patch, texts, crops)
        else:
            _script_context(method, patch, texts, crops)
        (result,) = method.generate([film])
    return result, crops


def _script_decoder(method, patch, texts, crops):
    vocabulary = method.decoder.vocabulary
    block = [vocabulary.boi_token_id, *vocabulary.image_ids[:16].tolist(), vocabulary.eoi_token_id]

    def scripted(model, prompts, settings, provide_image=None):
        ids = []
        for text in texts:
            if text == IMAGE_PLACEHOLDER and provide_image is not None:
                provide_image(0, [*ids, vocabulary.boi_token_id])
            ids += block if text == IMAGE_PLACEHOLDER else method.writer.encode_text(text)
        return [torch.cat([prompts[0], torch.tensor([*ids, vocabulary.eos_token_id])])]

    def recording(images):
        crops.extend(images)
        return tokenize(images)

    tokenize = method.tokenize_images
    patch.setattr("zoo.methods.interleaved_reasoning.generate", scripted)
    patch.setattr(method, "tokenize_images", recording)
    patch.setattr(method.writer, "encode_prompt", lambda *given: (crops.clear(), [vocabulary.bos_token_id])[1])


def _script_context(method, patch, texts, crops):
    def scripted(context, prompts, embeds, max_new_tokens, images):
        parts = [text for text in texts if text != IMAGE_PLACEHOLDER]
        if images.is_due(0, parts[0]):
            images.provide({0: parts[0]})
        return [Continuation(texts=parts)]

    def recording(images, whole):
        crops.extend(image for image, is_whole in zip(images, whole, strict=True) if not is_whole)
        return embed(images, whole)

    embed = method.image_embeds
    patch.setattr("zoo.methods.interleaved_vision_language.generate_interleaved", scripted)
    patch.setattr(method, "image_embeds", recording)


@pytest.mark.parametrize(("build", "mode"), METHODS)
@pytest.mark.parametrize("frame", [64, 32])
def test_a_film_twice_the_size_has_the_same_text_and_cuts_the_same_evidence(tmp_path, monkeypatch, build, mode, frame):
    method = build(mode, frame)
    records = {factor: trace_of_size(tmp_path, factor) for factor in (1, 2)}
    placeholders = method.tokenize_images([FILM, FILM]) if build is decoder_method else []
    learned = {factor: method.encode_record(record, placeholders) for factor, record in records.items()}
    assert learned[1] == learned[2]
    named = tuple(edge * frame // 64 for edge in BOX)
    assert f"[{', '.join(map(str, named))}]" in method.tokenizer.decode(learned[1].input_ids)
    results = {}
    for factor, record in records.items():
        film = read_image(record.images[0])
        result, crops = generated(method, film, monkeypatch, named)
        results[factor] = crops
        assert [step.box for step in result["steps"]] == [record.steps[0].box]
        prediction = method.report_of(film, result)
        assert prediction.to_dict()["steps"][0]["box"] == record.steps[0].box
        monkeypatch.setattr(method, "generate", lambda images, prompts, result=result: [result])
        outputs = method.evaluation_step({"record": [record], "images": [[film, film]], "swap": [None]})
        assert method.metrics()["region_iou"](outputs) == 1.0
        monkeypatch.delattr(method, "generate")
    assert len(results[1]) == (mode == "crop")
    assert all(torch.equal(enlarged(one, 2), two) for one, two in zip(results[1], results[2], strict=True))


@pytest.mark.parametrize(("build", "mode"), METHODS)
def test_in_pixels_the_text_depends_on_the_size_of_the_film(tmp_path, build, mode):
    """As in the official code; other frames have other tokens in the cache."""
    methods = {frame: build(mode, frame) for frame in ("pixels", 64, 32)}
    assert len({method.sequence_fingerprint() for method in methods.values()}) == 3
    record = replace(trace_of_size(tmp_path, 1), images=[Path("no film is read"), Path("nor this")])
    placeholders = methods[64].tokenize_images([FILM, FILM]) if build is decoder_method else []
    assert "[8, 16, 40, 56]" in methods["pixels"].tokenizer.decode(
        methods["pixels"].encode_record(record, placeholders).input_ids
    )


def test_numbers_that_a_tokenizer_does_not_know_are_an_error(tmp_path):
    """A word-level tokenizer is made for one frame; without this, a model would learn that every box is unknown."""
    method = decoder_method("box", 1000)
    with pytest.raises(ArgumentError, match=re.escape("does not know the numbers of the box [125, 250, 625, 875]")):
        method.encode_record(trace_of_size(tmp_path, 1), [])


def test_a_published_card_names_the_same_place_on_a_film_twice_the_size():
    """Its films have 256 pixels; the evidence is of the same place, to what its image tokenizer makes of other pixels."""
    method = load("interleaved-crop-chest-drr")
    content = json.loads((read_card("interleaved-crop-chest-drr").folder / "probe.json").read_text())
    for sample in content["samples"]:
        film = decode_sample(sample["images"])[0]
        small, large = method.predict_images([film, enlarged(film, 2)])
        assert small.steps and [step.box for step in large.steps] == [
            tuple(2 * edge for edge in step.box) for step in small.steps
        ]
        for one, two in zip(small.evidence, large.evidence, strict=True):
            assert float((one - two).abs().mean()) < 0.03
