"""chest_drr as pairs of image and report, for contrastive pretraining."""

from typing import Annotated, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from zoo.data.base import LoaderSpec, Sample, ZooData
from zoo.data.chest_drr.datasets.film_augmentation import augment_film
from zoo.data.chest_drr.datasets.rendered import RenderedCases
from zoo.data.chest_drr.rendering.build import CaseSeries
from zoo.data.chest_drr.rendering.findings import SEVERITIES, read_findings
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.chest_drr.text.captions import build_facts, write_caption
from zoo.data.chest_drr.text.reports import negative_sentences, positive_sentences, write_report
from zoo.errors import ArgumentError
from zoo.ranges import NonNegativeInt
from zoo.registry import Unpacked, register


def as_tensor(image: np.ndarray) -> torch.Tensor:
    """A 16-bit image (height, width) as float32 (1, height, width) in [0, 1]."""
    return torch.from_numpy(image.astype(np.float32) / 65535)[None]


class CaptionPairs(Dataset[Sample]):
    """Images with captions or reports, and the facts of each image; sampled anew at each access if ``vary``."""

    def __init__(self, series: CaseSeries, seed: int, *, augment: bool, vary: bool) -> None:
        """Read from a built series; ``augment`` varies pose and exposure."""
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
            "facts": build_facts(record),
            "findings": [finding.kind for finding in read_findings(record)],
        }


class ReportPairs(Dataset[Sample]):
    """Images with reports; ``vary`` words a report anew at each access."""

    def __init__(self, series: CaseSeries, names: list[str], seed: int, *, severity: bool, vary: bool) -> None:
        """Read from a built series."""
        self._series, self._names, self._seed = series, names, seed
        self._severity, self._vary = severity, vary

    def __len__(self) -> int:
        """Number of cases."""
        return len(self._series)

    def __getitem__(self, index: int) -> Sample:
        """``image`` (1, size, size) in [0, 1], ``text``, and ``findings`` as names."""
        findings = read_findings(self._series.record(index))
        wording = int(torch.randint(2**31, ())) if self._vary else 0
        rng = np.random.default_rng([self._seed, index, wording])
        text = write_report(findings, self._names, rng, severity=self._severity)
        image = as_tensor(self._series.image(index))
        return {"image": image, "text": text, "findings": [finding.kind for finding in findings]}


@register("dataset", "chest_drr")
class ChestDrrReports(RenderedCases, ZooData):
    """Rendered radiographs with reports. The findings, their severities and the style can be chosen."""

    def __init__(
        self,
        findings: list[str] | None = None,
        severity: bool = True,
        max_findings: NonNegativeInt = 3,
        captions: bool = False,
        augment: bool = False,
        render: Annotated[RenderSpec, Unpacked] = RenderSpec(image_size=128),
        loader: Annotated[LoaderSpec, Unpacked] = LoaderSpec(batch_size=32),
    ) -> None:
        """Set what is rendered and reported.

        Args:
            findings: names of those that may occur; all if None.
            severity: whether reports name severities.
            max_findings: most findings in a case.
            captions: captions beside reports, with the facts of each image (:mod:`zoo.data.chest_drr.text.captions`).
            augment: vary pose and exposure of training images (with captions only).
            render: how many radiographs are rendered, and how.
            loader: how batches are loaded; its seed is of order and wording, and the cases do not depend on it.

        Raises:
            ArgumentError: there is no such finding, or an argument does not go with ``captions``.
        """
        super().__init__(loader)
        self.findings = findings or list(SEVERITIES)
        if unknown := set(self.findings) - set(SEVERITIES):
            raise ArgumentError(f"no findings named {sorted(unknown)}; there are {', '.join(SEVERITIES)}")
        self.configure_rendering(render, self.findings, max_findings)
        if captions and (findings or not severity):
            raise ArgumentError("captions name all findings with their severities; leave out findings and severity")
        if augment and not captions:
            raise ArgumentError("augment needs captions: true")
        self.severity, self.captions, self.augment = severity, captions, augment

    def open_split(self, name: str) -> Dataset[Sample]:
        """Render what the cache lacks."""
        if self.captions:
            train = name == "train"
            return CaptionPairs(self.series(name), self.loader.seed, augment=self.augment and train, vary=train)
        return ReportPairs(
            self.series(name), self.findings, self.loader.seed, severity=self.severity, vary=name == "train"
        )

    def metadata(self) -> dict[str, Any]:
        """Zero-shot probes as well: for each finding, the sentences of reports that state it and that deny it."""
        return {
            **super().metadata(),
            "probes": {name: [positive_sentences(name), negative_sentences(name)] for name in self.findings},
        }
