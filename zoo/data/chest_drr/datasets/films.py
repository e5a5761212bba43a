"""chest_drr as single pictures, films and close-ups of their regions: what an image tokenizer is trained on."""

from typing import Annotated, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from zoo.data.base import Sample, ZooData
from zoo.data.chest_drr.datasets.rendered import RenderedCases
from zoo.data.chest_drr.datasets.reports import as_tensor
from zoo.data.chest_drr.rendering.build import CaseSeries
from zoo.data.io.crops import close_up
from zoo.registry import Injected, register


class FilmsAndCloseUps(Dataset[Sample]):
    """Each case once whole or as a close-up of one region; drawn anew each time where ``vary``."""

    def __init__(self, series: CaseSeries, side: int, share: float, *, vary: bool) -> None:
        """Read from a built series; ``share`` of the pictures are close-ups."""
        self._series, self._side, self._share, self._vary = series, side, share, vary

    def __len__(self) -> int:
        """Number of cases."""
        return len(self._series)

    def __getitem__(self, index: int) -> Sample:
        """``image`` (1, side, side) in [0, 1]."""
        rng = np.random.default_rng([index, int(torch.randint(2**31, ())) if self._vary else 0])
        film, height = as_tensor(self._series.image(index)), self._series.image(index).shape[0]
        box = (0, 0, height, height)
        if rng.random() < self._share:
            boxes = [item["box"] for item in self._series.record(index)["regions"].values() if item["box"]]
            box = boxes[rng.integers(len(boxes))]
        return {"image": close_up(film, box, self._side)}


@register("dataset", "chest_drr_films")
class ChestDrrFilms(RenderedCases, ZooData):
    """Rendered radiographs, half of them whole and half as close-ups of anatomical regions."""

    def __init__(
        self,
        size: int = 2000,
        image_size: int = 256,
        picture_size: int = 64,
        close_ups: float = 0.5,
        style: Literal["standard", "portable"] = "standard",
        batch_size: int = 16,
        num_workers: int = 0,
        build_workers: int | None = None,
        seed: Annotated[int, Injected] = 0,
    ) -> None:
        """Choose what is rendered.

        Args:
            size: training cases; a tenth as many (at least 64) each for validation and test.
            image_size: side of the rendered films in pixels, from which close-ups are cut.
            picture_size: side of the samples.
            close_ups: share of close-ups.
            style: of the film.
            batch_size: pictures a step.
            num_workers: loader processes.
            build_workers: rendering processes; all cores if None.
            seed: of the order; the cases themselves do not depend on it.
        """
        super().__init__(batch_size, num_workers, seed)
        self.choose(size, image_size, style, build_workers)
        self.picture_size, self.close_ups = picture_size, close_ups

    def open_split(self, name: str) -> Dataset[Sample]:
        """Render what the cache lacks."""
        return FilmsAndCloseUps(self.series(name), self.picture_size, self.close_ups, vary=name == "train")
