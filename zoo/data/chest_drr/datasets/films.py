"""chest_drr as images alone, whole radiographs and crops of their regions: what an image tokenizer is trained on."""

from typing import Annotated

import numpy as np
import torch
from torch.utils.data import Dataset

from zoo.data.base import LoaderSpec, Sample, ZooData
from zoo.data.chest_drr.datasets.rendered import RenderedCases
from zoo.data.chest_drr.datasets.reports import as_tensor
from zoo.data.chest_drr.rendering.build import CaseSeries
from zoo.data.chest_drr.rendering.spec import RenderSpec
from zoo.data.io.crops import crop
from zoo.ranges import Fraction, PixelSide
from zoo.registry import Unpacked, register


class ImagesAndCrops(Dataset[Sample]):
    """Each case once, whole or cropped to one region; sampled anew at each access if ``vary``."""

    def __init__(self, series: CaseSeries, side: int, crop_probability: float, *, vary: bool) -> None:
        """Read from a built series."""
        self._series, self._side, self._vary = series, side, vary
        self._crop_probability = crop_probability

    def __len__(self) -> int:
        """Number of cases."""
        return len(self._series)

    def __getitem__(self, index: int) -> Sample:
        """``image`` (1, side, side) in [0, 1]."""
        rng = np.random.default_rng([index, int(torch.randint(2**31, ())) if self._vary else 0])
        image = as_tensor(self._series.image(index))
        box = (0, 0, image.shape[-1], image.shape[-2])
        if rng.random() < self._crop_probability:
            boxes = [item["box"] for item in self._series.record(index)["regions"].values() if item["box"]]
            box = boxes[rng.integers(len(boxes))]
        return {"image": crop(image, box, self._side)}


@register("dataset", "chest_drr_films")
class ChestDrrFilms(RenderedCases, ZooData):
    """Rendered radiographs, whole or cropped to an anatomical region."""

    def __init__(
        self,
        output_size: PixelSide = 64,
        crop_probability: Fraction = 0.5,
        render: Annotated[RenderSpec, Unpacked] = RenderSpec(),
        loader: Annotated[LoaderSpec, Unpacked] = LoaderSpec(),
    ) -> None:
        """Set what is rendered.

        Args:
            output_size: side of the samples in pixels.
            crop_probability: that a sample is a crop of a region.
            render: how many radiographs are rendered, and how.
            loader: how batches are loaded; the cases do not depend on its seed.
        """
        super().__init__(loader)
        self.configure_rendering(render)
        self.output_size, self.crop_probability = output_size, crop_probability

    def open_split(self, name: str) -> Dataset[Sample]:
        """Render what the cache lacks."""
        return ImagesAndCrops(self.series(name), self.output_size, self.crop_probability, vary=name == "train")
