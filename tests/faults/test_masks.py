"""No mask, polygon or run length from a file reaches COCO's library unchecked: it would read or write foreign memory."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from tests.faults.arbitrary import ODD_VALUES, bounded_memory, changed_json, fuzz, value_or_error
from zoo.data.io.masks import (
    MaskError,
    check_run_length,
    compress_run_lengths,
    decode_masks,
    encode_mask,
    encode_polygons,
    mask_area,
)

SIZE = (16, 12)
SQUARE = [[2, 2, 9, 2, 9, 9, 2, 9]]
NAN = float("nan")


@pytest.mark.parametrize(
    ("polygon", "message"),
    [
        ([NAN, 1, 5, 5, 9, 1], "not a finite number"),
        ([1e18, 1, 5, 5, 9, 1], "far outside"),
        ([1e7, 1, 5, 5, 9, 1], "far outside"),
        ([1, 1, 5, 5], "at least three points"),
        ([1, 1, 5, 5, 3], "at least three points"),
        (["a", 1, 5, 5, 3, 4], "list of numbers"),
        ([[1, 2], [3]], "list of numbers"),
        ([10**400, 1, 5, 5, 9, 1], "list of numbers"),
    ],
)
def test_polygons_that_would_crash_the_interpreter_are_refused(polygon, message):
    with bounded_memory(100), pytest.raises(MaskError, match=message):
        encode_polygons([polygon], SIZE)


def test_a_polygon_may_leave_its_image_a_little():
    mask = decode_masks([encode_polygons([[-3, -3, 5, -3, 5, 20, -3, 20]], SIZE)], SIZE)[0]
    assert mask[:, :5].all() and not mask[:, 6:].any()


def test_outlines_are_bounded_together():
    zigzag = [[x, y] for _ in range(40_000) for x, y in ((0, 0), (120, 160), (0, 160))]
    with bounded_memory(100), pytest.raises(MaskError, match="longer than"):
        encode_polygons([zigzag], (160, 120))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("52", "sum to 7 pixels"),
        ("5o", "break off"),
        ("", "no run lengths"),
        ("é", "no run lengths"),
        ("b'Zl1:f_1'", "no run lengths|sum to"),
        ("oooooooo1", "larger than any image"),
        ("P60N1N1", "sum to"),
    ],
)
def test_run_lengths_that_do_not_fill_their_image_are_refused(counts, message):
    with pytest.raises(MaskError, match=message):
        check_run_length({"size": list(SIZE), "counts": counts})


@pytest.mark.parametrize("size", [[10**5, 10**5], [16, 0], [16], "16", None, [16.0, 12], [True, True], [-16, -12]])
def test_sizes_of_masks_are_checked(size):
    with pytest.raises(MaskError, match="must have a 'size'"):
        check_run_length({"size": size, "counts": encode_mask(np.ones(SIZE, bool))["counts"]})


@pytest.mark.parametrize("counts", [[5, 2], [-5, 197], [192.0], [NAN], [True] * 192, ["192"], [2**40]])
def test_uncompressed_run_lengths_are_checked(counts):
    with pytest.raises(MaskError):
        compress_run_lengths({"size": list(SIZE), "counts": counts}, SIZE)


@given(st_numpy.arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20))))
@fuzz
def test_every_mask_that_the_library_encodes_passes(mask):
    encoded = json.loads(json.dumps(encode_mask(mask)))
    assert check_run_length(encoded, mask.shape) == encoded
    assert mask_area(encoded) == mask.sum()
    assert np.array_equal(decode_masks([encoded], mask.shape)[0].numpy(), mask)


@given(st.text(alphabet=st.characters(min_codepoint=48, max_codepoint=111), max_size=12))
@fuzz
def test_any_text_of_their_characters_is_a_mask_or_an_error(counts):
    mask = value_or_error(lambda: decode_masks([{"size": list(SIZE), "counts": counts}], SIZE))
    assert isinstance(mask, MaskError) or set(mask.unique().tolist()) <= {0.0, 1.0}


@given(changed_json(SQUARE), ODD_VALUES)
@fuzz
def test_any_values_are_a_mask_or_an_error(polygons, value):
    with bounded_memory():
        value_or_error(lambda: encode_polygons(polygons, SIZE))
        value_or_error(lambda: encode_polygons(SQUARE, [value, 12]))
        value_or_error(lambda: check_run_length(value))
        value_or_error(lambda: compress_run_lengths({"size": list(SIZE), "counts": value}, SIZE))
