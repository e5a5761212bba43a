"""Generated reports, kept until they are scored: a metric that fails, or an interruption, does not cost a second generation."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from zoo.data.traces.records import Step
from zoo.methods.report_generation import ReportGeneration, Swap


class GeneratedReports:
    """JSON Lines of what a method generates in evaluation, by the hash of image and prompt; a file for each process."""

    def __init__(self, path: Path) -> None:
        """Name the files: ``path`` with the rank of the process after it."""
        self.path = path

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{self.path.name}.*.jsonl"))

    def begin(self, method: ReportGeneration) -> None:
        """Keep what a method generates from now on, and return what was kept before; a batch with anything new is generated whole."""
        kept = {key: value for part in self._parts() for key, value in _read(part)}

        def keep(keys: Sequence[str], values: Sequence[Any]) -> None:
            kept.update(zip(keys, values, strict=True))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.with_name(f"{self.path.name}.{method.global_rank}.jsonl").open(
                "a", encoding="utf-8"
            ) as file:
                for key, value in zip(keys, values, strict=True):
                    file.write(json.dumps([key, value]) + "\n")

        def is_kept(keys: Sequence[str]) -> bool:
            return all(key in kept for key in keys)

        _wrap_generate(method, kept, keep, is_kept)
        _wrap_swapped_statements(method, kept, keep, is_kept)

    def end(self) -> None:
        """Remove the files of all processes."""
        for part in self._parts():
            part.unlink()


_TEXTS = ("report", "response")
_Keep = Callable[[Sequence[str], Sequence[Any]], None]


def _wrap_generate(
    method: ReportGeneration, kept: dict[str, Any], keep: _Keep, is_kept: Callable[[Sequence[str]], bool]
) -> None:
    generate = method.generate

    def generate_once(images: Sequence[torch.Tensor], prompts: Sequence[str] | None = None) -> list[dict[str, Any]]:
        texts = prompts or [method.prompt] * len(images)
        keys = [_key([text], [image]) for text, image in zip(texts, images, strict=True)]
        if not is_kept(keys):
            results = generate(images, prompts)
            keep(
                keys,
                [
                    {**{name: item[name] for name in _TEXTS}, "steps": list(map(asdict, item["steps"]))}
                    for item in results
                ],
            )
            return results
        return [
            {**{name: kept[key][name] for name in _TEXTS}, "steps": [_step(**step) for step in kept[key]["steps"]]}
            for key in keys
        ]

    method.generate = generate_once  # type: ignore[method-assign]


def _wrap_swapped_statements(
    method: ReportGeneration, kept: dict[str, Any], keep: _Keep, is_kept: Callable[[Sequence[str]], bool]
) -> None:
    swapped_statements = method.swapped_statements

    def state_once(swaps: Sequence[Swap]) -> list[tuple[set[str], set[str]]]:
        keys = [
            _key([swap.record.prompt, repr(swap.record.steps), str(swap.step)], [*swap.images, swap.other])
            for swap in swaps
        ]
        if not is_kept(keys):
            results = swapped_statements(swaps)
            keep(keys, [[sorted(own), sorted(other)] for own, other in results])
            return results
        return [(set(own), set(other)) for own, other in (kept[key] for key in keys)]

    method.swapped_statements = state_once  # type: ignore[method-assign]


def _key(texts: Sequence[str], images: Sequence[torch.Tensor]) -> str:
    digest = hashlib.sha256(
        json.dumps([_TEXTS, texts, [[str(image.dtype), *image.shape] for image in images]]).encode()
    )
    for image in images:
        digest.update(image.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _step(opening: str, image: int, box: list[int] | None, statement: str) -> Step:
    left_to_bottom = None if box is None else (box[0], box[1], box[2], box[3])
    return Step(opening, image, left_to_bottom, statement)


def _read(file: Path) -> list[tuple[str, Any]]:
    """Whole lines; the last one of a process that was killed may not be."""
    pairs = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            key, value = json.loads(line)
        except ValueError:
            continue
        pairs.append((key, value))
    return pairs
