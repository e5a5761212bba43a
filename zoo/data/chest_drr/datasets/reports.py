"""chest_drr as image and report pairs, with regions and findings: the view that pretraining and pictures use."""

from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from zoo.data.base import Sample, ZooData
from zoo.data.chest_drr.datasets.film_augmentation import augment_film
from zoo.data.chest_drr.datasets.rendered import RenderedCases
from zoo.data.chest_drr.rendering.build import CaseSeries
from zoo.data.chest_drr.rendering.findings import SEVERITIES, findings_of
from zoo.data.chest_drr.text.captions import facts_of, write_caption
from zoo.data.chest_drr.text.reports import denying, stating, write_report
from zoo.errors import ArgumentError
from zoo.registry import Injected, register


def as_tensor(image: np.ndarray) -> torch.Tensor:
    """A 16-bit image (height, width) as float32 (1, height, width) in [0, 1]."""
    return torch.from_numpy(image.astype(np.float32) / 65535)[None]


class CaptionPairs(Dataset[Sample]):
    """Images with short captions and reports, and what is true of which image; anew each time where ``vary``."""

    def __init__(self, series: CaseSeries, seed: int, *, augment: bool, vary: bool) -> None:
        """Read from a built series; ``augment`` changes how a film was taken."""
        self._series, self._seed, self._augment, self._vary = series, seed, augment, vary

    def __len__(self) -> int:
        """Number of cases."""
        return len(self._series)

    def __getitem__(self, index: int) -> Sample:
        """``image`` (1, size, size) in [0, 1], ``text`` with its ``claims``, the image's ``facts``, ``findings`` as names."""
        record = self._series.record(index)
        rng = np.random.default_rng([self._seed, index, int(torch.randint(2**31, ())) if self._vary else 0])
        text, claims = write_caption(record, rng)
        image = as_tensor(self._series.image(index))
        return {
            "image": augment_film(image, rng) if self._augment else image,
            "text": text,
            "claims": claims,
            "facts": facts_of(record),
            "findings": [finding.kind for finding in findings_of(record)],
        }


class ReportPairs(Dataset[Sample]):
    """Images with reports; ``vary`` words a report anew each time it is asked for."""

    def __init__(self, series: CaseSeries, kinds: list[str], seed: int, *, severity: bool, vary: bool) -> None:
        """Read from a built series."""
        self._series, self._kinds, self._seed = series, kinds, seed
        self._severity, self._vary = severity, vary

    def __len__(self) -> int:
        """Number of cases."""
        return len(self._series)

    def __getitem__(self, index: int) -> Sample:
        """``image`` (1, size, size) in [0, 1], ``text``, and ``findings`` as names."""
        findings = findings_of(self._series.record(index))
        wording = int(torch.randint(2**31, ())) if self._vary else 0
        rng = np.random.default_rng([self._seed, index, wording])
        text = write_report(findings, self._kinds, rng, severity=self._severity)
        image = as_tensor(self._series.image(index))
        return {"image": image, "text": text, "findings": [finding.kind for finding in findings]}


@register("dataset", "chest_drr")
class ChestDrrReports(RenderedCases, ZooData):
    """Rendered radiographs with reports. The findings, their severities and the film style can be chosen."""

    def __init__(
        self,
        size: int = 2000,
        image_size: int = 128,
        style: Literal["standard", "portable"] = "standard",
        findings: list[str] | None = None,
        severity: bool = True,
        at_most: int = 3,
        captions: bool = False,
        augment: bool = False,
        batch_size: int = 32,
        num_workers: int = 0,
        build_workers: int | None = None,
        seed: Annotated[int, Injected] = 0,
    ) -> None:
        """Choose what is rendered.

        Args:
            size: training cases; a tenth as many (at least 64) each for validation and test.
            image_size: side in pixels.
            style: of the film.
            findings: names of those that may occur; all if None.
            severity: whether reports name severities.
            at_most: findings in a case.
            captions: short captions beside reports, with what is true of which image (:mod:`zoo.data.chest_drr.text.captions`).
            augment: films for training are taken anew: turned, scaled, flatter, noisier; for captions alone.
            batch_size: pairs a step.
            num_workers: loader processes.
            build_workers: rendering processes; all cores if None.
            seed: of order and wording; the cases themselves do not depend on it.

        Raises:
            ArgumentError: there is no such finding, or what captions cannot do is asked of them.
        """
        super().__init__(batch_size, num_workers, seed)
        self.kinds = findings or list(SEVERITIES)
        if unknown := set(self.kinds) - set(SEVERITIES):
            raise ArgumentError(f"no findings named {sorted(unknown)}; there are {', '.join(SEVERITIES)}")
        self.choose(size, image_size, style, build_workers, self.kinds, at_most)
        if (captions and (findings or not severity)) or (augment and not captions):
            raise ArgumentError("captions name all findings with their severities; only with them films are augmented")
        self.severity, self.captions, self.augment = severity, captions, augment

    def open_split(self, name: str) -> Dataset[Sample]:
        """Render what the cache lacks."""
        if self.captions:
            train = name == "train"
            return CaptionPairs(self.series(name), self.seed, augment=self.augment and train, vary=train)
        return ReportPairs(self.series(name), self.kinds, self.seed, severity=self.severity, vary=name == "train")

    def metadata(self) -> dict[str, Any]:
        """Zero-shot probes: for each finding, the reports' own sentences that state it and that deny it."""
        return {**super().metadata(), "probes": {kind: [stating(kind), denying(kind)] for kind in self.kinds}}
