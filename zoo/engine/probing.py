"""A card's probe: a few samples of its test split with the outputs and metrics that its weights give on them.

It is measured again in seconds, without the data set (``zoo verify --quick``). The samples are in the card, images as JPEG,
so a probe is written only where they may be published.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import torch

from zoo.cards.prose import check_prose, write_prose
from zoo.cards.schema import CardFile
from zoo.cards.store import PROBE, Card, CardError, check_files, read_card
from zoo.checksums import sha256_of
from zoo.config.building import resolve_recipe
from zoo.config.locations import left_out
from zoo.data.base import collate
from zoo.data.classification.base import ClassificationData
from zoo.data.samples import SampleError, decode_sample, encode_sample
from zoo.engine.evaluation import Evaluation, open_evaluation
from zoo.engine.loading import load_resolved
from zoo.files import replacing
from zoo.methods.base import Outputs, ZooModule
from zoo.methods.distributed import INDEX, concatenate_outputs

TOLERANCE = 0.02
"""By which outputs and metrics may differ, as a share of the largest; processors round differently."""
Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]
"""Makes a batch of samples."""
_MAX_BYTES = 2_000_000
_DIGITS = 5


@dataclass(frozen=True)
class CheckedOutput:
    """An output or metric of a card's probe beside what is measured now; for an output, ``measured`` is how far it is off."""

    card: str
    name: str
    expected: float
    measured: float
    holds: bool


def write_probe(evaluation: Evaluation, file: Path, indices: Sequence[int] = (0, 1)) -> None:
    """Write a probe of the test samples with these indices.

    Raises:
        SampleError: the samples have values that a card cannot hold.
    """
    dataset = evaluation.data.split("test")
    samples = [_encoded(dataset[index]) for index in indices]
    outputs = _outputs(evaluation.method, evaluation.data.collate, samples, indices)
    content = {
        "split": "test",
        "indices": list(indices),
        "samples": samples,
        "outputs": {name: [list(value.shape), _numbers(value)] for name, value in outputs.items()},
        "metrics": _metrics(evaluation.method, outputs),
    }
    with replacing(file) as partial:
        partial.write_text(json.dumps(content) + "\n", encoding="utf-8")


def add_probe(name: str | Path, indices: Sequence[int] = (0, 1), settings: Sequence[str] = ()) -> Path:
    """Write a probe into a card that is there, and list it in its record; its weights and recipe stay as they are.

    Args:
        name: of the card, or its folder.
        indices: of the test samples.
        settings: ``key=value`` changes of its recipe: the place of its data, for a card that does not name it.

    Raises:
        RecipeError: the place of the data is not given.
        CardError: the card is damaged, or its data have values that a card cannot hold.
    """
    card = read_card(name)
    check_files(card)
    write_probe(open_evaluation(card.folder, settings), card.folder / PROBE, indices)
    path = card.folder / PROBE
    entry = CardFile(name=PROBE, size=path.stat().st_size, sha256=sha256_of(path))
    files = [file for file in card.record.files if file.name != PROBE]
    write_prose(
        card.record.model_copy(update={"files": sorted([*files, entry], key=lambda file: file.name)}), card.folder
    )
    return path


def verify_probe(name: str | Path, settings: Sequence[str] = ()) -> list[CheckedOutput]:
    """Check a card's files, README and base, and measure its probe again.

    What the method gives beside the probe's outputs is of a later version than the card, and is not checked.

    Args:
        name: of the card, or its folder.
        settings: ``key=value`` changes of its recipe.

    Raises:
        CardError: something is not what the record says, or the card has no probe. Outputs that differ are returned, not raised.
    """
    card = read_card(name)
    check_files(card)
    check_prose(card)
    content = _read_probe(card)
    method, collate = _without_data(card, settings)
    outputs = _outputs(method, collate, content["samples"], content["indices"])
    if missing := sorted(content["outputs"].keys() - outputs.keys()):
        raise CardError(
            f"the probe of card '{card.name}' has {', '.join(missing)}, which {card.record.method} does not give"
        )
    checked = [_checked_output(card.name, name, outputs[name], *item) for name, item in content["outputs"].items()]
    metrics = _metrics(method, outputs)
    for metric, expected in content["metrics"].items():
        measured = metrics.get(metric, float("nan"))
        holds = abs(measured - expected) <= TOLERANCE * max(1.0, abs(expected))
        checked.append(CheckedOutput(card.name, metric, expected, measured, holds))
    return checked


def _without_data(card: Card, settings: Sequence[str]) -> tuple[ZooModule, Collate]:
    """A card's method and what makes its batches; a classifier needs no data for that, where the card does not name theirs."""
    resolved = resolve_recipe(card.recipe(settings))
    dataset = resolved.data.target
    if issubclass(dataset, ClassificationData) and any(left_out(resolved.recipe.content, "data")):
        return load_resolved(card, resolved), collate
    evaluation = open_evaluation(card.folder, settings)
    return evaluation.method, evaluation.data.collate


def _read_probe(card: Card) -> dict[str, Any]:
    if PROBE not in {file.name for file in card.record.files}:
        raise CardError(f"card '{card.name}' has no probe; add one with: zoo probe {card.name}")
    path = card.folder / PROBE
    if path.stat().st_size > _MAX_BYTES:
        raise CardError(f"{path} is larger than {_MAX_BYTES} bytes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        is_whole = content.keys() >= {"indices", "samples", "outputs", "metrics"} and all(
            len(content[name]) > 0 for name in ("samples", "outputs")
        )
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise CardError(f"{path} is no probe: {error}") from error
    if not is_whole:
        raise CardError(f"{path} is no probe: it lacks samples, outputs or metrics")
    probe: dict[str, Any] = content
    return probe


def _encoded(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample without what a card cannot hold; where evaluation needs that, it fails when the probe is written."""
    content = {}
    for key, value in sample.items():
        try:
            content[key] = encode_sample(value)
        except SampleError:
            continue
    return content


def _outputs(method: ZooModule, collate: Collate, samples: Sequence[dict[str, Any]], indices: Sequence[int]) -> Outputs:
    """Outputs of encoded samples, each evaluated alone."""
    parts = []
    method.eval()
    for sample, index in zip(samples, indices, strict=True):
        decoded = {key: decode_sample(value) for key, value in sample.items()}
        batch = method.transfer_batch_to_device(collate([{**decoded, INDEX: index}]), method.device, 0)
        try:
            with torch.no_grad(), method.autocast():
                outputs = method.evaluation_step(batch)
        except (KeyError, AttributeError, TypeError) as error:
            raise SampleError(f"the samples lack what {type(method).__name__} is evaluated with: {error!r}") from error
        parts.append({name: value.detach().cpu() for name, value in outputs.items() if name != INDEX})
    return method.complete_outputs(concatenate_outputs(_padded(parts)))


def _padded(parts: list[Outputs]) -> list[Outputs]:
    """Outputs whose rows differ in length, as token ids do, padded with -1."""
    for name in parts[0]:
        width = max(part[name].shape[-1] for part in parts) if parts[0][name].ndim > 1 else 0
        for part in parts if width else ():
            part[name] = torch.nn.functional.pad(part[name], (0, width - part[name].shape[-1]), value=-1)
    return parts


def _metrics(method: ZooModule, outputs: Outputs) -> dict[str, float]:
    """The metrics that are numbers on so few samples."""
    values = {name: metric(outputs) for name, metric in method.metrics().items()}
    return {name: round(value, _DIGITS) for name, value in values.items() if isfinite(value)}


def _numbers(values: torch.Tensor) -> list[float | int | None]:
    flat = values.flatten().tolist()
    return [None if isnan(value) else round(value, _DIGITS) if isinstance(value, float) else value for value in flat]


def _checked_output(card: str, name: str, values: torch.Tensor, shape: list[int], expected: list[Any]) -> CheckedOutput:
    """Floating-point numbers by their largest difference, others by the share that differs."""
    if list(values.shape) != shape or len(expected) != values.numel():
        return CheckedOutput(card, name, 0.0, float("inf"), False)
    found = torch.tensor([float("nan") if value is None else value for value in _numbers(values)], dtype=torch.float64)
    wanted = torch.tensor([float("nan") if value is None else value for value in expected], dtype=torch.float64)
    if not torch.equal(found.isnan(), wanted.isnan()):
        return CheckedOutput(card, name, 0.0, float("inf"), False)
    difference = (found - wanted).nan_to_num().abs()
    if values.is_floating_point():
        off = float(difference.max() / wanted.nan_to_num().abs().max().clamp(min=1e-9)) if len(expected) else 0.0
    else:
        off = float((difference > 0).double().mean()) if len(expected) else 0.0
    return CheckedOutput(card, name, 0.0, off, off <= TOLERANCE)
