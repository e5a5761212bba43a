"""Measure every verified vision-language family against transformers, and write ``docs/tables/families.json``.

``PYTHONPATH=. python docs/measure_families.py``, on the tiny models of the tests: the largest absolute difference of logits to
the model's own forward pass on its own processor's inputs, and generated tokens that differ from ``model.generate``.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from tests.own_forward import Loaded, load_family
from tests.tiny_models.vision_language import FAMILIES
from zoo.language.ragged_cache import RaggedCache

QUESTIONS = ["Where is it?", "Is there a nodule in the left lung, please?"]
TOKENS = 10


def largest(logits: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest absolute difference."""
    return float((logits - expected).abs().max())


@torch.no_grad()
def alone(model: Loaded, images: int) -> tuple[float, float]:
    """Difference on one sequence with so many images, and the standard deviation of the logits."""
    pixels = model.pixels(images)
    inputs = model.inputs(QUESTIONS[:1], [pixels])
    expected = model.context.model(**inputs).logits
    hidden_states = model.context.hidden_states(inputs["input_ids"], model.embeds(pixels))
    return largest(model.context.logits(hidden_states), expected), float(expected.std())


@torch.no_grad()
def batch(model: Loaded) -> dict[str, Any]:
    """Differences on two sequences padded on the right and on the left, and in generation."""
    context, pixels = model.context, model.pixels(2)
    images, embeds = [[image] for image in pixels], model.embeds(pixels)
    right = model.inputs(QUESTIONS, images, padding_side="right")
    real = right["attention_mask"].bool()
    logits = context.logits(context.hidden_states(right["input_ids"], embeds))
    results: dict[str, Any] = {"right": largest(logits[real], context.model(**right).logits[real])}
    left = model.inputs(QUESTIONS, images, padding_side="left")
    prompts = [context.tokenize([(question, None)], context.tokens_per_image)[0] for question in QUESTIONS]
    last = RaggedCache(context, 2, torch.device("cpu")).append(prompts, embeds)
    results["left"] = largest(context.logits(last), context.model(**left).logits[:, -1])
    options = {"do_sample": False, "max_new_tokens": TOKENS, "suppress_tokens": [context.image_token_id]}
    generated = context.model.generate(**left, **options)[:, left["input_ids"].shape[1] :].tolist()
    answers = context.generate(prompts, embeds, TOKENS)
    texts = [context.tokenizer.decode(_until_end(ids, context.stop_token_ids)).strip() for ids in generated]
    results["generated"] = sum(answer.text == text for answer, text in zip(answers, texts, strict=True))
    return results


def _until_end(ids: list[int], stops: list[int]) -> list[int]:
    ends = [place for place, token in enumerate(ids) if token in stops]
    return ids[: ends[0]] if ends else ids


def main() -> None:
    """Measure, print and write."""
    rows = []
    for name in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            model = load_family(name, Path(folder) / "one")
            one, deviation = alone(model, 1)
            several, _ = alone(load_family(name, Path(folder) / "several", several=True), 3)
            row = {"family": name, "deviation": deviation, "one": one, "several": several, **batch(model)}
        print(row, flush=True)
        rows.append(row)
    path = Path(__file__).parent / "tables" / "families.json"
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
