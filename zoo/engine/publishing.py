"""Publishing a run as a card: weights, recipe, record, prose and metrics."""

import json
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from math import isfinite, prod
from pathlib import Path
from typing import Any

import torch

from zoo.cards.prose import write_prose
from zoo.cards.schema import LICENSES, MAX_TOLERANCE, PLAIN_NAME, CardBase, CardData, CardFile, CardMetric, CardRecord
from zoo.cards.store import (
    PROBE,
    RECIPE,
    WEIGHTS,
    Card,
    CardError,
    check_files,
    named_cards,
    read_safetensors,
)
from zoo.checksums import sha256_of
from zoo.config.locations import LEFT_OUT, value_at, without_paths
from zoo.config.recipe import read_recipe
from zoo.engine.evaluation import Evaluation, collect, collect_cached, how_to_finish, measure_all, open_evaluation
from zoo.engine.probing import write_probe
from zoo.engine.trainers import check_settings
from zoo.engine.training import save_weights, trial_settings
from zoo.errors import ZooWarning
from zoo.files import replace_folder, scratch_folder
from zoo.methods.base import ZooModule
from zoo.metrics.intervals import Measured
from zoo.paths import publishing_folder
from zoo.registry import nearest

_CURVES = "curves.png"
OUT_OF_SCOPE = "Any clinical use: diagnosis, triage, or decisions about patients."


def publish(
    run: Path,
    name: str,
    *,
    version: str = "1.0.0",
    half: bool = False,
    limitations: str = "",
    license: str | None = None,
    data_license: str | None = None,
    data_source: str | None = None,
    tolerance: float = 0.01,
    replace: bool = False,
    probe: bool = False,
    folder: Path | None = None,
    device: str = "auto",
    settings: Sequence[str] = (),
) -> Path:
    """Publish a finished run as the card ``name``; an existing card is replaced only when the new one is complete.

    The card names no file or folder of this machine: what its data need to be evaluated again is said in its place.

    Args:
        run: the run folder.
        name: of the card, and of its folder.
        version: to increase when a published card changes.
        half: store float16, half the size; metrics are then measured with the stored weights, else taken from the
            cached outputs of the run where a comparison has evaluated it.
        limitations: added to those of the data set.
        license: of the weights, as a Hugging Face licence name; "unknown" if None, with a warning, since only their owner can
            grant one.
        data_license: of the training data; what the data set says of itself if None.
        data_source: what the training data are and how to get them; what the data set says of itself if None.
        tolerance: by which a metric may differ when it is verified.
        replace: overwrite a card of this name.
        probe: put the first test samples, with their outputs, into the card (:mod:`zoo.engine.probing`); only where they may be
            published.
        folder: for cards; ``ZOO_CHECKPOINTS``, or ``checkpoints`` in the working directory, if None.
        device: to evaluate on.
        settings: ``key=value`` overrides for the evaluation: of the trainer, or of the source of the base.

    Raises:
        RecipeError: another setting is changed.
        CardError: the run is unfinished or was a trial, no metric is a number, or the card exists and ``replace`` is off.
    """
    check_settings(settings)
    if not 0 < tolerance <= MAX_TOLERANCE:
        raise CardError(f"a tolerance of {tolerance} says nothing; it must be above 0 and at most {MAX_TOLERANCE}")
    if not re.fullmatch(PLAIN_NAME, name):
        raise CardError(f"'{name}' is not a valid card name; use letters, digits, and . _ - after the first character")
    target = (folder or publishing_folder()) / name
    if target.exists() and not replace:
        raise CardError(f"{target} exists; increase its version and use --replace, or choose another name")
    if not (run / "model.safetensors").is_file():
        todo = how_to_finish(run) if (run / "recipe.yaml").is_file() else "it has no model.safetensors"
        raise CardError(f"{run} is not a finished run; {todo}")
    _refuse_trial(run)
    license = _checked_license(license)
    with scratch_folder(target.parent, ".draft-") as scratch:
        draft = scratch / name
        draft.mkdir()
        _write_weights(run, draft, half)
        left_out = _write_recipe(run, draft)
        evaluation = open_evaluation(run, settings, device)
        if half:
            stored = read_safetensors(draft / WEIGHTS)
            evaluation.method.load_trained_state(
                {name: v.to(torch.float32) if v.is_floating_point() else v for name, v in stored.items()}
            )
            outputs = collect(evaluation)
        else:
            outputs = collect_cached(evaluation, run / "outputs-test.safetensors")
        metrics = measure_all(evaluation.method.metrics(), [outputs])
        if probe:
            write_probe(evaluation, draft / PROBE)
        data = _data(evaluation, data_license, data_source, left_out)
        record = _record(evaluation, run, draft, name, version, limitations, license, data, tolerance, metrics)
        write_prose(record, draft)
        check_files(Card(draft, record))
        replace_folder(draft, target)
    return target


def _refuse_trial(run: Path) -> None:
    """Refuse a run that only tried its recipe."""
    if trial := trial_settings(read_recipe(run / "recipe.yaml", record=True)):
        raise CardError(f"{run} was a trial, with {', '.join(trial)}; train without to publish")


def _checked_license(license: str | None) -> str:
    """The licence as the card states it, with a warning where there is none or the Hub has no such name."""
    if license is None:
        warnings.warn(
            "no licence is given, so the card says 'unknown', which lets nobody use the weights; publish with --license NAME, "
            "after reading the licences of the base and of the data",
            ZooWarning,
            stacklevel=3,
        )
    elif license not in LICENSES:
        message = f"'{license}' is not a licence name of the Hugging Face Hub{nearest(license, list(LICENSES))}"
        warnings.warn(message, ZooWarning, stacklevel=3)
    return license or "unknown"


def _write_weights(run: Path, draft: Path, half: bool) -> None:
    weights = read_safetensors(run / "model.safetensors")
    if half:
        weights = {name: v.half() if v.is_floating_point() else v for name, v in weights.items()}
    save_weights(weights, draft / WEIGHTS)
    for name in (RECIPE, _CURVES):
        if (run / name).is_symlink():
            raise CardError(f"{run / name} is a symbolic link, which is not published; replace it by the file")
    if (run / _CURVES).is_file():
        shutil.copyfile(run / _CURVES, draft / _CURVES)


def _write_recipe(run: Path, draft: Path) -> list[str]:
    """Write the recipe of a run without the files, folders and loggers of this machine; returns the keys of files and folders."""
    recipe = read_recipe(run / RECIPE, record=True)
    content, keys = without_paths(recipe.content)
    content["trainer"] = {key: value for key, value in (content.get("trainer") or {}).items() if key != "logger"}
    (draft / RECIPE).write_text(recipe.with_content(**content).to_yaml(), encoding="utf-8")
    return keys


def _record(
    evaluation: Evaluation,
    run: Path,
    draft: Path,
    name: str,
    version: str,
    limitations: str,
    license: str,
    data: CardData,
    tolerance: float,
    metrics: dict[str, Measured],
) -> CardRecord:
    method, recipe = evaluation.method, evaluation.recipe
    trained = method.trained_state()
    if not any(isfinite(measured.value) for measured in metrics.values()):
        raise CardError(f"{run} has no metric that is a number on the test split; a card needs one")
    return CardRecord(
        name=name,
        version=version,
        method=recipe["method"]["name"],
        task=method.task,
        license=license,
        base=_base(evaluation),
        data=data,
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
            if isfinite(measured.value)  # the test split has no sample for the others
        ],
        intended_use=method.intended_use,
        out_of_scope_use=OUT_OF_SCOPE,
        limitations=" ".join(part for part in (evaluation.data.limitations, limitations) if part) or "None stated.",
        trained_with=_trained_with(run),
    )


def data_places(run: Path) -> list[str]:
    """The ``key=value`` settings with which a run's card is evaluated on this machine, since the card does not name its data."""
    recipe = read_recipe(run / RECIPE, record=True)
    return [f"{key}={value_at(recipe.content, key)}" for key in without_paths(recipe.content)[1]]


def _data(evaluation: Evaluation, license: str | None, source: str | None, left_out: list[str]) -> CardData:
    """The data set as the user describes it, else as it describes itself, and what it takes to evaluate the card again."""
    data, name = evaluation.data, evaluation.recipe["data"]["name"]
    source = source or data.source
    if keys := [key for key in left_out if key.startswith("data.")]:
        arguments = " ".join(f"{key}=PATH" for key in keys)
        source = f"{source.rstrip('.')}. They are not in the card; to evaluate it: zoo eval CARD {arguments}"
    return CardData(name=name, license=license or data.license, source=source)


def _size(method: ZooModule) -> int:
    """Number of parameters and buffer elements of a method; a quantised weight, two in a byte, counts as before."""
    names = {name for name, _ in method.named_parameters(remove_duplicate=False)}
    names |= {name for name, _ in method.named_buffers(remove_duplicate=False)}
    state: Mapping[str, Any] = method.state_dict(keep_vars=True)
    shapes = [
        getattr(getattr(value, "quant_state", None), "shape", value.shape)
        for name, value in state.items()
        if name in names
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


def _base(evaluation: Evaluation) -> CardBase | None:
    fingerprint = evaluation.method.base_fingerprint()
    if fingerprint is None:
        return None
    bases = {card.name: card.record.license for card in named_cards(evaluation.recipe["init_from"])}
    bases |= {
        str(part.origin): str(part.license) for part in evaluation.method.modules() if getattr(part, "origin", "")
    }
    if bases:
        licenses = ", ".join(dict.fromkeys(bases.values()))
        return CardBase(name=", ".join(bases), license=licenses, fingerprint=fingerprint)
    encoder = evaluation.recipe["method"][evaluation.method.frozen[0]]
    encoder = without_paths({"method": encoder})[0]["method"]
    described = " ".join(value for value in encoder.values() if isinstance(value, str) and LEFT_OUT not in value)
    return CardBase(name=described, license="that of its authors", fingerprint=fingerprint)


def _trained_with(run: Path) -> str:
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    revision = environment["git_revision"] or "unknown"
    weights = f"; the weights are the {summary['weights']}" if "weights" in summary else ""
    return (
        f"{summary['steps']} steps in {summary['seconds'] / 60:.1f} minutes on {environment['device']}; "
        f"torch {environment['packages']['torch']}, lightning {environment['packages']['lightning']}; revision {revision}{weights}"
    )
