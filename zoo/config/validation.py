"""Recipes checked against the registries and signatures: every mistake at once, before anything heavy is built."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval
from pydantic import Field

from zoo.config.components import Component, expected_class, is_injected, signature_of, unpacked_defaults
from zoo.config.recipe import SECTIONS, Recipe
from zoo.errors import ZooError
from zoo.ranges import Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt
from zoo.registry import UnknownComponentError, nearest, registry, slot_of

_BATCHES = Annotated[int, Interval(ge=0, le=1_000_000_000)] | Fraction
"""A number of batches, or a share of them."""

TRAINER_RANGES: dict[str, Any] = {
    "max_epochs": Annotated[int, Ge(-1)],
    "min_epochs": NonNegativeInt,
    "max_steps": Annotated[int, Ge(-1)],
    "min_steps": NonNegativeInt,
    "num_nodes": PositiveInt,
    "accumulate_grad_batches": PositiveInt,
    "check_val_every_n_epoch": PositiveInt,
    "log_every_n_steps": NonNegativeInt,
    "num_sanity_val_steps": Annotated[int, Ge(-1)],
    "gradient_clip_val": NonNegativeFloat,
    "fast_dev_run": bool | NonNegativeInt,
    "devices": Literal["auto", -1] | PositiveInt | str | list[NonNegativeInt],
    "max_time": Annotated[str, Field(pattern=r"^\d{1,4}:\d{2}:\d{2}:\d{2}$")] | dict[str, NonNegativeInt],
    **dict.fromkeys(
        ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches"),
        _BATCHES,
    ),
    "val_check_interval": _BATCHES,
}
"""Ranges of lightning.Trainer's arguments, which its signature does not give; -1 is its "no limit"."""
TRAINER_COMPONENTS = {"logger": "logger", "callbacks": "callback"}
"""Arguments of the trainer that are names of components, with their kind."""
TRAINER_OWN = (
    "plugins default_root_dir enable_checkpointing barebones use_distributed_sampler inference_mode "
    "model_registry profiler"
).split()
"""Arguments of lightning.Trainer that the zoo sets, or that are no values of a YAML file."""
_ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu", "xpu", "hpu")
Report = Callable[[str, str], None]
"""Takes the key of an argument and what is wrong with it."""


def resolve_component(kind: str, node: Any, key: str, report: Report, expected: type | None = None) -> Component | None:
    """Resolve one component of a recipe, and those in its slots; everything wrong with it is reported.

    Args:
        kind: of the component.
        node: its section, a mapping with a ``name``.
        key: where the section stands in the recipe.
        report: called with each problem.
        expected: the class that it must be.

    Returns:
        The component; None where the name leads to none.
    """
    if not isinstance(node, dict) or not isinstance(node.get("name"), str):
        report(key, f"is not a component; write {{name: ..., ...}} with a name of: {', '.join(registry(kind))}")
        return None
    try:
        target = registry(kind).resolve(node["name"])
    except UnknownComponentError as error:
        report(f"{key}.name", str(error))
        return None
    if expected and inspect.isclass(target) and not issubclass(target, expected):
        report(f"{key}.name", f"is {node['name']}, which is not a {expected.__name__}")
        return None
    arguments = {name: value for name, value in node.items() if name != "name"}
    return Component(kind, node["name"], target, resolve_arguments(target, arguments, key, report))


def resolve_arguments(target: Any, arguments: dict[str, Any], key: str, report: Report) -> dict[str, Any]:
    """Check arguments against a signature and resolve the components among them."""
    parameters, hints = signature_of(target)
    resolved, wrong = dict(arguments), set()
    for name, value in arguments.items():
        place = f"{key}.{name}"
        if name not in parameters:
            report(place, f"unknown argument for {target.__name__}{nearest(str(name), list(parameters))}")
        elif (kind := slot_of(hints.get(name))) and value is not None:
            resolved[name] = resolve_component(kind, value, place, report, expected_class(hints[name]))
        elif message := type_problem(hints.get(name, Any), value):
            wrong.add(name)
            report(place, message)
    for name, parameter in parameters.items():
        required = parameter.default is inspect.Parameter.empty and not is_injected(hints.get(name))
        if required and name not in arguments:
            report(f"{key}.{name}", f"is missing; {target.__name__} requires it")
    for default in unpacked_defaults(target).values():
        _report_conflicts(default, arguments, wrong, key, report)
    return resolved


def _report_conflicts(default: Any, arguments: dict[str, Any], wrong: set[str], key: str, report: Report) -> None:
    """Report arguments that do not go together, by the checks of the dataclass that they are fields of."""
    values = {field.name: arguments[field.name] for field in fields(default) if field.name in arguments}
    if wrong & values.keys():
        return  # reported, and not for its checks
    try:
        replace(default, **values)
    except ZooError as error:
        report(key, str(error))


def section_problems(recipe: Recipe, report: Report) -> None:
    """Report what is wrong with the sections that are not components."""
    for key in recipe.content:
        if key not in SECTIONS:
            report(str(key), f"unknown section{nearest(str(key), list(SECTIONS))}")
    if type(recipe["seed"]) is not int or not 0 <= recipe["seed"] < 2**32:
        report("seed", f"is {recipe['seed']!r}; expected an integer from 0 to 2**32 - 1")
    if (problem := type_problem(str | list[str] | None, recipe["init_from"])) is not None:
        report("init_from", problem)
    if (problem := type_problem(str | None, recipe["protocol"])) is not None:
        report("protocol", problem)
    if recipe["trainer"] is not None:
        _trainer_problems(recipe["trainer"], report)


def _trainer_problems(arguments: Any, report: Report) -> None:
    if not isinstance(arguments, dict):
        report("trainer", "expected a mapping of lightning.Trainer's arguments")
        return
    from lightning import Trainer

    reported: set[str] = set()

    def report_once(key: str, message: str) -> None:
        if key not in reported:
            report(key, message)
        reported.add(key)

    for name in TRAINER_OWN:
        if name in arguments:
            report_once(f"trainer.{name}", "cannot be set in a recipe; the zoo sets it")
    for name, kind in TRAINER_COMPONENTS.items():
        if name in arguments:
            _component_problems(kind, arguments[name], f"trainer.{name}", report)
    values = {name: value for name, value in arguments.items() if name not in TRAINER_COMPONENTS}
    resolve_arguments(Trainer, values, "trainer", report_once)
    for name, annotation in TRAINER_RANGES.items():
        value = arguments.get(name)
        if value is not None and (message := type_problem(annotation, value)):
            report_once(f"trainer.{name}", message)
    if (accelerator := arguments.get("accelerator", "auto")) not in _ACCELERATORS:
        report_once("trainer.accelerator", f"is {accelerator!r}{nearest(str(accelerator), list(_ACCELERATORS))}")


def component_nodes(value: Any) -> list[Any]:
    """Components that a recipe gives as one or several, each by its name alone or as a mapping with a name."""
    return [
        {"name": item} if isinstance(item, str) else item for item in (value if isinstance(value, list) else [value])
    ]


def _component_problems(kind: str, value: Any, key: str, report: Report) -> None:
    nodes, names = component_nodes(value), set()
    for index, node in enumerate(nodes):
        place = f"{key}.{index}" if isinstance(value, list) else key
        component = resolve_component(kind, node, place, report)
        if component and component.name in names:
            report(place, f"names {component.name} a second time")
        names |= {component.name} if component else set()


def type_problem(annotation: Any, value: Any) -> str | None:
    """What is wrong with a value for an annotation, as a sentence's end; None where it fits."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    settings = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    try:
        adapter = TypeAdapter(annotation, config=settings)
    except PydanticUserError:  # a dataclass or model brings its own configuration
        adapter = TypeAdapter(annotation)
    try:
        accepted = adapter.validate_python(value, strict=not isinstance(value, str | list))
    except ValidationError as error:
        reasons = sorted({_reason(item) for item in error.errors()})
        return f"is {value!r}: {'; or '.join(reasons)}"
    if isinstance(value, str) and not isinstance(accepted, str | Path):
        return f"is the text {value!r}; write it without quotes"
    return None


def _reason(error: Mapping[str, Any]) -> str:
    """What pydantic says, with the name of a field that is missing or unknown."""
    message = error["msg"][0].lower() + error["msg"][1:]
    named = error["type"] in ("missing", "unexpected_keyword_argument")
    return f"{error['loc'][-1]}: {message}" if named else message
