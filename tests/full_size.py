"""The published full-size recipes on tiny models in the real formats: only sources, data, devices and precision are changed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.data.annotations.public_forms import label_table
from tests.tiny_models import (
    anole,
    biomedclip,
    coop_split,
    gemma3,
    ivl_traces,
    llava,
    medseg_files,
    openclip_vitb16,
    qwen,
    qwen3_vl,
    sam,
    sam2,
    sam3,
)
from zoo.config.recipe import list_recipes, read_recipe

STORED = {"llava": torch.float16, "qwen": torch.bfloat16, "anole": torch.bfloat16}
"""How the real weights are stored."""
ANSWER = "On the left [SEG]."


def make_sources(folder: Path, **dtypes: torch.dtype) -> Path:
    """Write every tiny model and data set; ``dtypes`` are those of stored weights in place of the real ones'."""
    stored = {**STORED, **dtypes}
    llava(folder / "llava", dtype=stored["llava"])
    llava(folder / "llava-64", dtype=stored["llava"], width=64)  # NF4 takes blocks of 64
    qwen(folder / "qwen", dtype=stored["qwen"])
    qwen3_vl(folder / "qwen3_vl", dtype=stored["qwen"])
    gemma3(folder / "gemma3", dtype=stored["qwen"])
    anole(folder / "anole", dtype=stored["anole"])
    sam(folder / "sam")
    sam2(folder / "sam2", video=True)  # as published
    sam3(folder / "sam3")
    openclip_vitb16(folder / "clip")
    biomedclip(folder / "biomedclip")
    coop_split(folder / "coop")
    ivl_traces(folder / "ivl")
    medseg_files(folder / "medseg")
    label_table(folder / "labels")
    return folder


def is_full_size(name: str) -> bool:
    """Whether a recipe names weights that are not the zoo's own; the official protocols have tests of their own."""
    return not name.split("/")[1].startswith(("chest_drr", "official"))


def family_of(source: str) -> str:
    """The tiny model that stands in for a vision-language model."""
    name = source.rsplit("/", 1)[-1].lower()
    tiny = {"qwen3-vl": "qwen3_vl", "qwen2.5-vl": "qwen", "medgemma": "gemma3", "llava": "llava"}
    return next(family for part, family in tiny.items() if part in name)


def full_size_recipes() -> list[str]:
    """One full-size recipe of those that differ in their data, prompt, devices, strategy and weights of one family alone."""
    first: dict[str, str] = {}
    for name in filter(is_full_size, list_recipes()):
        content = read_recipe(name).content
        method = {key: value for key, value in content["method"].items() if key != "template"}
        if "context" in method:
            method["context"] = {**method["context"], "source": family_of(method["context"]["source"])}
        trainer = {key: content["trainer"].get(key) for key in ("precision", "gradient_clip_val")}
        first.setdefault(json.dumps([method, trainer], sort_keys=True), name)
    return list(first.values())


def tiny_settings(name: str, folder: Path, *more: str) -> list[str]:
    """Overrides of a full-size recipe that put the tiny sources in the place of the real ones."""
    content = read_recipe(name).content
    method, data = content["method"], content["data"]["name"]
    settings = ["trainer.accelerator=cpu", "trainer.devices=1", "trainer.strategy=auto", "trainer.max_epochs=2"]
    settings += ["trainer.accumulate_grad_batches=1", "trainer.enable_progress_bar=false"]
    if "context" in method:
        family = family_of(method["context"]["source"])
        quantized = method["context"].get("quantization") is not None
        settings.append(
            f"method.context.source={folder / (f'{family}-64' if quantized and family == 'llava' else family)}"
        )
        settings += ["method.context.quantization=null"] if quantized and family != "llava" else []
        if "grounding" in method:
            settings.append(
                f"method.grounding.source={folder / method['grounding']['name'].removesuffix('_grounding')}"
            )
        else:
            settings.append("method.max_new_tokens=40")
        settings += ["method.context.image_size=64"] if family.startswith("qwen") else []
    if "decoder" in method:
        settings.append(f"method.decoder.source={folder / 'anole'}")
        # A tiny model with random weights seldom ends a report by itself.
        settings += ["method.max_tokens=640", "method.max_length=640"]
    if method.get("clip", {}).get("name") == "open_clip":
        settings += [f"method.clip.model=local-dir:{folder / 'clip'}", "method.clip.pretrained=null"]
    if method.get("clip", {}).get("name") == "biomedclip":
        settings.append(f"method.clip.source=local-dir:{folder / 'biomedclip'}")
    if data == "coop_split":
        settings += [f"data.split_file={folder}/coop/split.json", f"data.images={folder}/coop/images", "data.shots=4"]
    elif data == "annotated_labels":
        node = f"{{name: label_table, table: {folder}/labels/labels.csv, labels: [effusion, edema]}}"
        settings += [f"data.annotations={node}", "data.batch_size=2"]
    else:
        kind = "medseg" if data == "medseg_files" else "ivl"
        settings += [f"data.{split}={folder}/{kind}/data.jsonl" for split in ("train", "val", "test")]
        settings.append("data.batch_size=1")
    return [*settings, *more]


def test_image(name: str, folder: Path) -> Path:
    """A file to predict on."""
    kind = read_recipe(name)["data"]["name"]
    inside = {
        "coop_split": "coop/images/dots/test_0.png",
        "medseg_files": "medseg/0.png",
        "annotated_labels": "labels/0.png",
    }
    return folder / inside.get(kind, "ivl/film_0.png")


@contextmanager
def forced_answer(text: str = ANSWER) -> Iterator[None]:
    """Inside, language models answer every question of a batch with one text, token by token."""
    from zoo.language.global_context import GlobalContext

    place = {"next": 0}

    def likeliest(self: GlobalContext, state: torch.Tensor) -> torch.Tensor:
        self.logits(state)
        ids = [*self.tokenizer.encode(text, add_special_tokens=False), self.eos_token_id]
        token = ids[place["next"]]
        place["next"] = (place["next"] + 1) % len(ids)
        return torch.full((len(state),), token, device=state.device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GlobalContext, "next_token_ids", likeliest)
        yield
