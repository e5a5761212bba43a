"""The tiny models and data load through the zoo's own classes, with the weights and records that were stored."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_models import (
    anole,
    biomedclip,
    causal_lm,
    coop_split,
    ivl_traces,
    llava,
    medseg_files,
    openclip_vitb16,
    qwen,
    sam,
)
from zoo.data.classification.coop_split import CoopSplit
from zoo.data.conversations.datasets import MedSegFiles
from zoo.data.traces.datasets import IvlJsonl
from zoo.decoders.interleaved_generation import GenerationSettings, generate
from zoo.decoders.interleaved_models import Anole
from zoo.encoders.clip import BiomedClip, OpenClip
from zoo.heads.sam_grounding import SamGrounding
from zoo.language.causal_lm import CausalLM
from zoo.language.vision_language import VisionLanguageContext

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
TEXTS = ["no finding", "a small pleural effusion, on the left side (portable film)"]


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def assert_same(loaded: dict[str, torch.Tensor], files: dict[str, torch.Tensor]) -> None:
    """Every stored weight has its place, and holds what was stored, whatever precision it is loaded in."""
    assert files and not files.keys() - loaded.keys()
    for name, value in files.items():
        assert torch.equal(loaded[name].float(), value.float()), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_causal_language_model(tmp_path, dtype):
    files = stored(causal_lm(tmp_path / "lm", dtype=dtype))
    assert {value.dtype for value in files.values()} == {dtype}
    model = CausalLM(str(tmp_path / "lm"))
    assert_same(model.model.state_dict(), files)
    assert model.tokenizer.decode(model.tokenizer.encode(TEXTS[1])) == TEXTS[1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [llava, qwen])
def test_vision_language_models(tmp_path, make, dtype):
    files = stored(make(tmp_path / "vlm", dtype=dtype))
    assert {value.dtype for value in files.values()} == {dtype}
    context = VisionLanguageContext(str(tmp_path / "vlm"), image_size=56)
    loaded = renamed_as_stored(context.model.state_dict(), files)
    # The rows of [SEG] are new.
    assert_same({name: loaded[name][: len(value)] for name, value in files.items() if value.ndim}, files)


def renamed_as_stored(state: dict[str, torch.Tensor], files: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers saves under the names of the hub's files, which are not those of its modules."""
    renamed = {}
    for name, value in state.items():
        for new, old in (
            ("model.language_model.", "language_model.model."),
            ("model.vision_tower.", "vision_tower."),
            ("model.multi_modal_projector.", "multi_modal_projector."),
            ("model.language_model.", "model."),
            ("model.visual.", "visual."),
            ("lm_head.", "language_model.lm_head."),
        ):
            other = old + name.removeprefix(new)
            if name.startswith(new) and name not in files and other in files:
                name = other
        renamed[name] = value
    return renamed


@pytest.mark.parametrize("dtype", DTYPES)
def test_sam(tmp_path, dtype):
    files = stored(sam(tmp_path / "sam", dtype=dtype))
    assert {value.dtype for value in files.values()} == {dtype}
    assert_same(SamGrounding(language_width=16, source=str(tmp_path / "sam")).sam.state_dict(), files)


@pytest.mark.parametrize("dtype", DTYPES)
def test_anole(tmp_path, dtype):
    """Encoder, codebook, decoder and language model under the official names, from shards."""
    files = stored(anole(tmp_path / "anole", dtype=dtype))
    assert {value.dtype for value in files.values() if value.is_floating_point()} == {dtype}
    assert len(list((tmp_path / "anole").glob("*.safetensors"))) == 2
    assert {"model.vqmodel.encoder.conv_in.weight", "model.vqmodel.decoder.conv_out.weight"} < files.keys()
    decoder = Anole(str(tmp_path / "anole")).eval()
    assert_same(decoder.language.state_dict(), files)
    assert decoder.tokenizer.decode(decoder.tokenizer.encode(TEXTS[1], add_special_tokens=False)) == TEXTS[1]
    vocabulary = decoder.vocabulary
    marks = decoder.tokenizer.convert_tokens_to_ids(
        ["<racm3:break>", "<eoss>", "<reserved08706>", "<image>", "IMGIMGDBZ"]
    )
    assert marks == [
        vocabulary.boi_token_id,
        vocabulary.eoi_token_id,
        vocabulary.sep_token_id,
        vocabulary.image_token_id,
        int(vocabulary.image_ids[31]),
    ]


@torch.no_grad()
def test_anole_sees_images_apart_and_writes_whole_ones(tmp_path):
    decoder = Anole(str(anole(tmp_path))).eval()
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images[::2] *= 0.2
    ids = decoder.tokenize_images(images)
    assert len(ids.unique(dim=0)) == 4 and ids.shape == (4, decoder.tokens_per_image) == (4, 16)
    assert decoder.image_tokenizer.decode(decoder.vocabulary.codes(ids)).shape == images.shape
    vocabulary = decoder.vocabulary
    prompt = torch.tensor(
        [vocabulary.bos_token_id, *decoder.tokenizer.encode("Draw."), vocabulary.sep_token_id, vocabulary.boi_token_id]
    )
    generated = generate(decoder, [prompt], GenerationSettings(max_new_tokens=17, greedy=True))[0]
    vocabulary.check(generated, decoder.tokens_per_image)


@pytest.mark.parametrize(("make", "load"), [(openclip_vitb16, OpenClip), (biomedclip, BiomedClip)])
@torch.no_grad()
def test_clips(tmp_path, make, load):
    files = stored(make(tmp_path))
    clip = load(f"local-dir:{tmp_path}").eval()
    assert_same(clip.model.state_dict(), files)
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    assert clip.image_size == (config["model_cfg"]["vision_cfg"]["image_size"],) * 2
    assert clip.mean.flatten().tolist() == pytest.approx(config["preprocess_cfg"]["mean"])
    images = torch.rand(2, 1, 48, 48)
    expected = clip.model.encode_image(clip.normalise(images), normalize=True)
    torch.testing.assert_close(clip.encode_image(images), expected, atol=1e-5, rtol=1e-4)
    texts = clip.model.encode_text(clip._tokenizer(TEXTS), normalize=True)
    torch.testing.assert_close(clip.encode_text(TEXTS), texts, atol=1e-5, rtol=1e-4)
    assert (texts[0] - texts[1]).abs().max() > 1e-3


def test_the_vitb16_has_openais_activation(tmp_path):
    import open_clip

    clip = OpenClip(f"local-dir:{openclip_vitb16(tmp_path)}")
    activations = {type(block.mlp.gelu) for block in clip.model.visual.transformer.resblocks}
    assert activations == {open_clip.transformer.QuickGELU}


def test_biomedclip_spells_any_text(tmp_path):
    clip = BiomedClip(f"local-dir:{biomedclip(tmp_path)}")
    ids = clip.tokenize(TEXTS)
    tokenizer = clip._tokenizer.tokenizer
    assert tokenizer.unk_token_id not in ids and ids.shape[1] < 64 and int(ids[0, 0]) == tokenizer.cls_token_id


def test_a_coop_split(tmp_path):
    folder = coop_split(tmp_path)
    data = CoopSplit(str(folder / "split.json"), str(folder / "images"), shots=2, image_size=64)
    assert data.class_names == ["stripes", "dots", "blank film"]
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [6, 6, 9]
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (6, 3, 64, 64) and sorted(batch["label"].tolist()) == [0, 0, 1, 1, 2, 2]


def test_conversations(tmp_path):
    file = str(medseg_files(tmp_path) / "data.jsonl")
    batch = next(iter(MedSegFiles(file, file, file).eval_dataloader("val")))
    assert [len(masks) for masks in batch["masks"]] == [1, 1, 0, 1]
    for image, masks in zip(batch["image"], batch["masks"], strict=True):
        assert torch.equal(
            image[0] > 0.5, masks.amax(dim=0) > 0 if len(masks) else torch.zeros(32, 32, dtype=torch.bool)
        )


def test_records_name_the_findings_they_are_scored_by(tmp_path):
    file = str(medseg_files(tmp_path) / "data.jsonl")
    data = MedSegFiles(file, file, str(tmp_path / "no such file.jsonl"))
    metadata = data.metadata()
    assert metadata["vocabulary"].labels == (("pleural effusion", "left"), ("pleural effusion", "right"))
    assert metadata["label_names"] == ["left pleural effusion", "right pleural effusion"]
    assert metadata["labeler"].label("A pleural effusion on the left [SEG].") == {("pleural effusion", "left")}
    lines = [json.loads(line) for line in Path(file).read_text().splitlines()]
    Path(file).write_text("\n".join(json.dumps({**line, "targets": [{}] * len(line["masks"])}) for line in lines))
    assert MedSegFiles(file, file, file).metadata() == {}


def test_traces(tmp_path):
    file = str(ivl_traces(tmp_path) / "data.jsonl")
    data = IvlJsonl(file, file, file)
    records = data.records("test")
    assert [[step.region for step in record.steps] for record in records] == [["left lung", "heart"]] * 3
    samples = [data.split("test")[index] for index in range(3)]
    for sample in samples:
        film, *evidence = sample["images"]
        for step, image in zip(sample["record"].steps, evidence, strict=True):
            left, top, right, bottom = step.box
            assert torch.equal(film[..., top:bottom, left:right], image)
    assert all(sample["swap"] is not None for sample in samples)
