"""Classes of a trained model and of the data it is measured on, matched by name and never by position."""

from zoo.cards.store import CardError
from zoo.config.building import ResolvedRecipe
from zoo.config.components import Component
from zoo.data.base import ZooData
from zoo.data.classification.base import ClassificationData


def is_class_bound(resolved: ResolvedRecipe) -> bool:
    """Whether a recipe's adapter learns weights for the classes of training, so that it can predict those only."""
    adapter = resolved.method.arguments.get("adapter")
    return isinstance(adapter, Component) and getattr(adapter.target, "class_bound", False)


def match_classes(resolved: ResolvedRecipe, data: ZooData) -> None:
    """Label data as a trained model numbers its classes, where it knows all of theirs.

    Data with other classes keep theirs, if the model's weights do not depend on them; so do the base and the novel half.

    Args:
        resolved: recipe of the run or card, with the class names of its training.
        data: to measure on.

    Raises:
        CardError: the weights are those of other classes.
    """
    names = resolved.method.arguments.get("class_names")
    if not names or not isinstance(data, ClassificationData):
        return
    bound = is_class_bound(resolved)
    if set(data.class_names) <= set(names):
        if bound or data.classes == "all":
            data.use_class_names(names)
    elif bound:
        raise CardError(
            f"the weights are for the classes {', '.join(names)}, and the data have {', '.join(data.class_names)}; "
            "classes are matched by name"
        )
