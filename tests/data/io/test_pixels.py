"""Limits, chosen frames and scaling, which all readers of images share."""

from pathlib import Path

import numpy as np
import pytest

from zoo.data.io.pixels import MAX_PIXELS, ImageError, check_pixel_count, chosen, to_unit

FILE = Path("film.dcm")


def test_too_many_pixels_are_refused_by_their_number():
    check_pixel_count(FILE, MAX_PIXELS)
    with pytest.raises(ImageError, match=r"film\.dcm: has 101 million pixels; the maximum is 100 million"):
        check_pixel_count(FILE, 101_000_000)


def test_one_of_several_frames_must_be_chosen():
    assert chosen(FILE, "frame", 1, None) == 0 and chosen(FILE, "frame", 3, 2) == 2
    with pytest.raises(ImageError, match="has 3 frames; choose one with frame=0 to frame=2"):
        chosen(FILE, "frame", 3, None)
    for choice in (3, -1):
        with pytest.raises(ImageError, match=f"has no frame {choice}; there are 0 to 2"):
            chosen(FILE, "frame", 3, choice)


def test_values_are_scaled_by_a_range_or_by_their_extremes():
    values = np.array([-1.0, 0.0, 3.0])
    np.testing.assert_allclose(to_unit(values), [0, 0.25, 1])
    np.testing.assert_allclose(to_unit(values, 0, 2), [0, 0, 1])
    assert not to_unit(np.full(3, 7.0)).any(), "a constant image is black"
    assert np.isnan(to_unit(np.array([0.0, np.nan, 1.0]), 0, 1)[1]), "what is no number does not become one"
