"""Boxes in the frame of a text: the same on a film of any size, and pixels of the film everywhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.data.traces.box_frames import BoxFrame

sizes = st.tuples(st.integers(8, 5000), st.integers(8, 5000))


@st.composite
def films_and_boxes(draw):
    height, width = draw(sizes)
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return (height, width), (left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height)))


@given(films_and_boxes(), st.integers(8, 2000))
def test_a_box_stays_inside_its_frame_and_comes_back_to_the_rounding(film_and_box, side):
    """Edges are off by half a step of the frame; those of a box thinner than a step, which is made one wide, by a step more."""
    (height, width), box = film_and_box
    frame = BoxFrame(side)
    left, top, right, bottom = text = frame.to_text(box, (height, width))
    assert 0 <= left < right <= side and 0 <= top < bottom <= side
    back = frame.to_pixels(text, (height, width))
    assert 0 <= back[0] < back[2] and 0 <= back[1] < back[3]
    steps = (width / side, height / side) * 2
    assert all(abs(a - b) <= 1.5 * step + 1 for a, b, step in zip(back, box, steps, strict=True))


@given(films_and_boxes())
def test_in_pixels_and_on_a_film_of_the_size_of_the_frame_boxes_are_as_they_are(film_and_box):
    (height, width), box = film_and_box
    assert BoxFrame("pixels").to_text(box, (height, width)) == box == BoxFrame("pixels").to_pixels(box, (height, width))
    square = BoxFrame(max(height, width, 8))
    size = (square.side, square.side)
    assert square.to_text(box, size) == box == square.to_pixels(box, size)


@pytest.mark.parametrize(("factor_y", "factor_x"), [(1, 1), (2, 2), (4, 1), (3, 5)])
def test_films_of_any_size_and_shape_have_the_same_text(factor_y, factor_x):
    frame, size = BoxFrame(256), (256 * factor_y, 256 * factor_x)
    box = (8 * factor_x, 16 * factor_y, 40 * factor_x, 56 * factor_y)
    assert frame.to_text(box, size) == (8, 16, 40, 56)
    assert frame.to_pixels((8, 16, 40, 56), size) == box
    assert frame.to_pixels((200, 0, 300, 256), size)[2] == 300 * factor_x, (
        "as far outside the film as outside the frame"
    )
