import pytest

from zoo.data.chest_drr.rendering.spec import MIN_HELD_OUT, RenderSpec
from zoo.errors import ArgumentError


@pytest.mark.parametrize(("size", "held_out"), [(10, MIN_HELD_OUT), (640, 64), (2000, 200)])
def test_a_tenth_is_held_out_twice(size, held_out):
    assert RenderSpec(size=size).counts == {"train": size, "val": held_out, "test": held_out}


def test_there_must_be_a_training_case():
    with pytest.raises(ArgumentError, match="size is 0; at least one training case"):
        RenderSpec(size=0)


def test_more_training_cases_may_leave_the_test_split_as_it_is():
    assert RenderSpec(size=4000, held_out=200).counts == {"train": 4000, "val": 200, "test": 200}
    with pytest.raises(ArgumentError, match="held_out is 0; at least one case"):
        RenderSpec(held_out=0)
