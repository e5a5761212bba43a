"""Ranges of numbers: every numeric argument of every component has one, and recipes out of it are refused."""

from typing import Annotated, Any, get_args, get_origin

import pytest

from zoo.config.building import check_recipe
from zoo.config.components import signature_of
from zoo.config.recipe import RecipeError, list_recipes, read_recipe
from zoo.config.validation import TRAINER_RANGES, type_problem
from zoo.registry import KINDS, registry, slot_of

ARGUMENTS = {
    f"{kind}.{name}.{argument}": (hint, signature_of(registry(kind).resolve(name))[0][argument].default)
    for kind in KINDS
    for name in registry(kind)
    for argument, hint in signature_of(registry(kind).resolve(name))[1].items()
    if argument in signature_of(registry(kind).resolve(name))[0] and slot_of(hint) is None
}


def bare_numbers(annotation: Any, bounded: bool = False) -> bool:
    """Whether a type holds an int or float that no mark of ``annotated_types`` bounds."""
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        return bare_numbers(inner, any(hasattr(mark, name) for mark in marks for name in ("ge", "gt", "lt", "le")))
    if annotation in (int, float):
        return not bounded
    return any(bare_numbers(part) for part in get_args(annotation))


def holds_numbers(annotation: Any) -> bool:
    return annotation in (int, float) or any(map(holds_numbers, get_args(annotation)))


def test_a_number_without_a_range_is_found():
    assert bare_numbers(int | None) and bare_numbers(list[Annotated[float, "a note"]])
    assert not bare_numbers(TRAINER_RANGES["max_epochs"] | None) and not bare_numbers(bool)


def test_every_numeric_argument_has_a_range():
    assert sum(holds_numbers(hint) for hint, _ in ARGUMENTS.values()) > 150
    assert [name for name, (hint, _) in ARGUMENTS.items() if bare_numbers(hint)] == []


def test_every_default_is_in_its_range():
    numbers = {name: argument for name, argument in ARGUMENTS.items() if isinstance(argument[1], int | float)}
    assert len(numbers) > 130
    assert {name: type_problem(*argument) for name, argument in numbers.items() if type_problem(*argument)} == {}


@pytest.mark.parametrize("recipe", list_recipes())
def test_published_recipes_are_in_range(recipe):
    check_recipe(read_recipe(recipe))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=-1", "optimizer.lr: is -1: input should be greater than or equal to 0"),
        ("optimizer.lr=.nan", "optimizer.lr: is nan: input should be a finite number"),
        ("optimizer.betas=[0.9]", "optimizer.betas: is [0.9]: list should have at least 2 items"),
        ("method.adapter.rank=0", "method.adapter.rank: is 0: input should be greater than or equal to 1"),
        ("data.batch_size=0", "data.batch_size: is 0"),
        ("data.image_size=-8", "data.image_size: is -8"),
        ("data.shots=-3", "data.shots: is -3"),
        ("data.seed=-1", "data.seed: is -1"),
        ("scheduler.floor=2", "scheduler.floor: is 2: input should be less than or equal to 1"),
        ("trainer.max_epochs=-2", "trainer.max_epochs: is -2"),
        ("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches: is 0"),
    ],
)
def test_a_number_out_of_range_is_refused_with_the_range(override, message):
    with pytest.raises(RecipeError) as refused:
        check_recipe(read_recipe("nearl_clip/chest_drr_16shot", [override]))
    assert f"command line: {message}" in str(refused.value)
