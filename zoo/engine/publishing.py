"""Making a card from a run: weights, recipe, record and prose, with its numbers."""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from math import isfinite, prod
from pathlib import Path
from typing import Any

import torch

from zoo.cards.prose import write_prose
from zoo.cards.schema import PLAIN_NAME, CardBase, CardData, CardFile, CardMetric, CardRecord
from zoo.cards.store import (
    RECIPE,
    WEIGHTS,
    Card,
    CardError,
    card_chain,
    check_files,
    read_safetensors,
    sha256_of,
    swap,
)
from zoo.engine.evaluation import Subject, collect, collect_once, measure_all, open_subject
from zoo.engine.trainers import check_settings
from zoo.engine.training import save_weights
from zoo.methods.base import ZooModule
from zoo.metrics.intervals import Measured
from zoo.paths import publishing_folder

OUT_OF_SCOPE = "Any clinical use: diagnosis, triage, or decisions about patients."


def publish(
    run: Path,
    name: str,
    *,
    version: str = "1.0.0",
    half: bool = False,
    limitations: str = "",
    license: str = "apache-2.0",
    tolerance: float = 0.01,
    replace: bool = False,
    folder: Path | None = None,
    device: str = "auto",
    settings: Sequence[str] = (),
) -> Path:
    """Make the card ``name`` from a finished run; a card of this name stays until the new one is whole.

    Args:
        run: the run folder.
        name: of the card, and of its folder.
        version: raise it when a published card changes.
        half: store float16, half the size; the numbers are then measured on the weights as stored, else taken from the
            outputs of the run where a comparison has measured it.
        limitations: added to what the data set says of itself.
        license: of the weights, as a Hugging Face licence name.
        tolerance: by which a measured number may differ when it is verified.
        replace: overwrite a card of this name.
        folder: where cards are kept; the zoo's own if None.
        device: to measure on.
        settings: ``key=value`` changes to measure with: of the trainer, or of where the base is.

    Raises:
        RecipeError: a setting is of something else.
        CardError: the run has not ended, or the card is there already and ``replace`` is off.
    """
    check_settings(settings)
    if not re.fullmatch(PLAIN_NAME, name):
        raise CardError(f"'{name}' is no name of a card; use letters, digits, and . _ - after the first")
    target = (folder or publishing_folder()) / name
    if target.exists() and not replace:
        raise CardError(f"{target} is there already; raise its version and say --replace, or choose another name")
    if not (run / "model.safetensors").is_file():
        raise CardError(f"{run} is no finished run: it has no model.safetensors")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".draft-") as scratch:
        draft = Path(scratch) / name
        draft.mkdir()
        _write_weights(run, draft, half)
        subject = open_subject(run, settings, device)
        if half:
            stored = read_safetensors(draft / WEIGHTS)
            subject.method.load_trained_state(
                {name: v.to(torch.float32) if v.is_floating_point() else v for name, v in stored.items()}
            )
            outputs = collect(subject)
        else:
            outputs = collect_once(subject, run / "outputs-test.safetensors")
        metrics = measure_all(subject.method.metrics(), [outputs])
        record = _record(subject, run, draft, name, version, limitations, license, tolerance, metrics)
        write_prose(record, draft)
        check_files(Card(draft, record))
        swap(draft, target)
    return target


def _write_weights(run: Path, draft: Path, half: bool) -> None:
    weights = read_safetensors(run / "model.safetensors")
    if half:
        weights = {name: v.half() if v.is_floating_point() else v for name, v in weights.items()}
    save_weights(weights, draft / WEIGHTS)
    shutil.copy(run / "recipe.yaml", draft / RECIPE)
    if (run / "curves.png").is_file():
        shutil.copy(run / "curves.png", draft / "curves.png")


def _record(
    subject: Subject,
    run: Path,
    draft: Path,
    name: str,
    version: str,
    limitations: str,
    license: str,
    tolerance: float,
    metrics: dict[str, Measured],
) -> CardRecord:
    method, data, recipe = subject.method, subject.data, subject.recipe
    trained = method.trained_state()
    return CardRecord(
        name=name,
        version=version,
        method=recipe["method"]["name"],
        task=method.task,
        license=license,
        base=_base(subject),
        data=CardData(name=recipe["data"]["name"], license=data.license, source=data.source),
        parameters_total=_size(method),
        parameters_trained=sum(value.numel() for value in trained.values()),
        input=method.input_format,
        output=method.output_format,
        files=[
            CardFile(name=path.name, size=path.stat().st_size, sha256=sha256_of(path))
            for path in sorted(draft.iterdir())
        ],
        metrics=[
            _metric(metric, measured, tolerance, recipe["seed"])
            for metric, measured in metrics.items()
            if isfinite(measured.value)  # the test split has nothing to measure the others on
        ],
        intended_use=method.intended_use,
        out_of_scope_use=OUT_OF_SCOPE,
        limitations=" ".join(part for part in (data.limitations, limitations) if part) or "None stated.",
        trained_with=_trained_with(run),
    )


def _size(method: ZooModule) -> int:
    """All numbers of a method; of a quantised weight, which packs two in a byte, those that it stands for."""
    own = {name for name, _ in method.named_parameters(remove_duplicate=False)}
    own |= {name for name, _ in method.named_buffers(remove_duplicate=False)}
    state: Mapping[str, Any] = method.state_dict(keep_vars=True)
    shapes = [
        getattr(getattr(value, "quant_state", None), "shape", value.shape)
        for name, value in state.items()
        if name in own
    ]
    return sum(map(prod, shapes))


def _metric(name: str, measured: Measured, tolerance: float, seed: int) -> CardMetric:
    return CardMetric(
        name=name,
        value=round(measured.value, 4),
        tolerance=tolerance,
        split="test",
        n=measured.n,
        seeds=[seed],
        interval=(round(measured.low, 4), round(measured.high, 4)),
    )


def _base(subject: Subject) -> CardBase | None:
    fingerprint = subject.method.base_fingerprint()
    if fingerprint is None:
        return None
    cards = [card for card in card_chain(subject.recipe["init_from"]) if not card.recipe()["init_from"]]
    bases = {card.name: card.record.license for card in cards}
    bases |= {str(part.origin): str(part.license) for part in subject.method.modules() if getattr(part, "origin", "")}
    if bases:
        licenses = ", ".join(dict.fromkeys(bases.values()))
        return CardBase(name=", ".join(bases), license=licenses, fingerprint=fingerprint)
    encoder = subject.recipe["method"][subject.method.frozen[0]]
    described = " ".join(str(value) for value in encoder.values() if isinstance(value, str))
    return CardBase(name=described, license="that of its authors", fingerprint=fingerprint)


def _trained_with(run: Path) -> str:
    made = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    revision = made["git_revision"] or "unknown"
    return (
        f"{summary['steps']} steps in {summary['seconds'] / 60:.1f} minutes on {made['device']}; "
        f"torch {made['packages']['torch']}, lightning {made['packages']['lightning']}; revision {revision}"
    )
