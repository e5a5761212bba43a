"""From a card to its method: weights loaded, hashes and base checked."""

from collections.abc import Sequence
from pathlib import Path

from zoo.cards.store import Card, CardError, read_card, read_weights
from zoo.config.building import ResolvedRecipe, resolve_recipe
from zoo.engine.assembly import build_method
from zoo.methods.base import ZooModule


def load(name: str | Path, *, for_training: bool = False, settings: Sequence[str] = ()) -> ZooModule:
    """Load a card's method with its trained weights and preprocessing.

    Args:
        name: of the card, or its folder.
        for_training: return it in training mode.
        settings: ``key=value`` changes of its recipe, as ``method.context.source=FOLDER`` where its base is elsewhere here.

    Raises:
        CardError: the card is missing, damaged, or was trained on another base.
        RecipeError: its recipe names components that this zoo does not have.
    """
    card = read_card(name)
    method = load_resolved(card, resolve_recipe(card.recipe(settings)))
    return method.train() if for_training else method.eval()


def load_resolved(card: Card, resolved: ResolvedRecipe) -> ZooModule:
    """Load a card's weights into the method of a resolved recipe, that of the card or one with other classes."""
    weights = read_weights(card)
    method = build_method(resolved)
    check_base(card, method)
    try:
        method.load_trained_state(weights)
    except ValueError as error:
        raise CardError(f"card '{card.name}': {error}") from error
    method.card_folder = card.folder
    return method


def check_base(card: Card, method: ZooModule) -> None:
    """Check that the frozen base has the weights that the card was trained on.

    Raises:
        CardError: its fingerprint is another.
    """
    base = card.record.base
    if base is None:
        return
    fingerprint = method.base_fingerprint()
    if fingerprint != base.fingerprint:
        raise CardError(
            f"card '{card.name}' was trained on {base.name} with fingerprint {base.fingerprint[:12]}, and the base here "
            f"has {(fingerprint or 'none')[:12]}; use the weights it names"
        )
