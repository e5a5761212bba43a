import numpy as np
import pytest

from zoo.data.chest_drr.rendering.cases import CaseSpec, render_case

SIZE = 64


def test_portable_radiographs_are_flatter():
    spread = {}
    for style in ("standard", "portable"):
        spec = CaseSpec(style=style, image_size=SIZE, classes=[None])
        images = [render_case(spec, "train", index).image[8:-8, 8:-8] / 65535 for index in range(6)]
        spread[style] = np.mean([np.quantile(image, 0.9) - np.quantile(image, 0.1) for image in images])
    assert spread["portable"] < 0.9 * spread["standard"]
    with pytest.raises(ValueError, match="there are standard, portable"):
        render_case(CaseSpec(style="lateral", image_size=SIZE), "train", 0)
