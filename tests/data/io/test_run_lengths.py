"""Run lengths against masks that numpy encodes in the plainest way, and everything else refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.data.io.run_lengths import RunLengthError, decode_runs


def encode(mask: np.ndarray, *, relative: bool, column_major: bool, first: int) -> str:
    """Pixel by pixel."""
    flat = (mask.T if column_major else mask).ravel().tolist()
    words, end, position = [], 0, 0
    while position < len(flat):
        if not flat[position]:
            position += 1
            continue
        start = position
        while position < len(flat) and flat[position]:
            position += 1
        words += [start - end + first if relative else start + first, position - start]
        end = position
    return " ".join(map(str, words))


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("column_major", [False, True])
@pytest.mark.parametrize("first", [0, 1])
def test_every_variant_is_decoded(relative, column_major, first):
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (3, 7), (16, 5)):
        mask = rng.random((height, width)) < 0.5
        variant = {"relative": relative, "column_major": column_major, "first": first}
        assert (decode_runs(encode(mask, **variant), (height, width), **variant) == mask).all()


def test_a_known_mask_of_siim_and_of_chexmask():
    siim = decode_runs("3 2 1 1", (4, 2), relative=True, column_major=True, first=0)
    assert siim.T.astype(int).tolist() == [[0, 0, 0, 1], [1, 0, 1, 0]]
    chexmask = decode_runs("1 2 7 1", (2, 4), relative=False, column_major=False, first=1)
    assert chexmask.astype(int).tolist() == [[1, 1, 0, 0], [0, 0, 1, 0]]
    assert not decode_runs("", (2, 2), relative=True, column_major=True, first=0).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1", "pairs of start and length; there are 1"),
        ("1 2 x 3", "must be whole numbers"),
        ("1.5 2", "must be whole numbers"),
        ("-4 2", "go from -4 to 2"),
        ("1 999999999999999999999999", "must be whole numbers|no image has"),
        ("3 14", "a run ends at pixel 17"),
        ("5 4 2 2", "overlap or are not in order"),
    ],
)
def test_malformed_runs_are_refused(text, message):
    with pytest.raises(RunLengthError, match=message):
        decode_runs(text, (4, 4), relative=False, column_major=True, first=0)


def test_an_image_without_pixels_or_with_too_many_is_refused():
    for size in ((0, 4), (-2, -2), (100_000, 100_000)):
        with pytest.raises(RunLengthError, match="is empty or too large"):
            decode_runs("", size, relative=False, column_major=True, first=0)


@given(text=st.text("0123456789 -.x", max_size=30), relative=st.booleans(), first=st.integers(0, 1))
def test_any_text_is_a_mask_or_an_error(text, relative, first):
    try:
        mask = decode_runs(text, (5, 7), relative=relative, column_major=False, first=first)
    except RunLengthError:
        return
    assert mask.shape == (5, 7) and mask.dtype == bool
