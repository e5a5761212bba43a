"""Finding cards, and reading them with their hashes checked."""

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from zoo.cards.schema import CardRecord
from zoo.checksums import sha256_of
from zoo.config.recipe import Recipe, read_recipe
from zoo.errors import ZooError, ZooWarning
from zoo.paths import card_folders
from zoo.registry import nearest

if TYPE_CHECKING:
    import torch

WEIGHTS = "model.safetensors"
RECIPE = "recipe.yaml"
PROSE = "README.md"
PROBE = "probe.json"
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
"""Ends of names of files that the zoo does not load."""
_FRONT_MATTER = re.compile(r"---\n(.*?\n)---\n", re.DOTALL)
"""Up to the first line that is nothing but ``---``; inside a text of the record such a line is indented."""
_MAX_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""


class CardError(ZooError, RuntimeError):
    """A card that is not there, is damaged, or does not belong to the model at hand."""


@dataclass(frozen=True)
class Card:
    """A card on disk: its folder and its checked record."""

    folder: Path
    record: CardRecord

    @property
    def name(self) -> str:
        """The card's name."""
        return self.record.name

    def recipe(self, overrides: Sequence[str] = ()) -> Recipe:
        """The resolved recipe that its weights were trained with, with ``key=value`` overrides."""
        return read_recipe(self.folder / RECIPE, overrides, record=True)


def list_cards() -> list[str]:
    """Names of all cards at hand."""
    names = {path.parent.name for folder in card_folders() for path in folder.glob(f"[!.]*/{PROSE}")}
    return sorted(names)


def read_card(name: str | Path) -> Card:
    """Read a card by name or folder; its files are checked when they are read.

    Raises:
        CardError: there is no such card, or its front matter does not fit the schema.
    """
    folder = find_card(name)
    front_matter = read_front_matter(folder / PROSE)
    try:
        return Card(folder, CardRecord.model_validate(front_matter.get("zoo")))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise CardError(f"{folder / PROSE} does not fit the card schema: " + "; ".join(lines)) from error


def find_card(name: str | Path) -> Path:
    """The folder of a card: the first of :func:`~zoo.paths.card_folders` that holds its weights, else the first that holds its record.

    A warning says which is meant where other cards have the same name.

    Raises:
        CardError: there is no such card; the message has the nearest names.
    """
    candidates = (*(base / name for base in card_folders()), Path(name))
    folders = [folder for folder in candidates if (folder / PROSE).is_file()]
    if not folders and (Path(name) / "environment.json").is_file():
        raise CardError(f"{name} is a run and no card; publish it first: zoo publish {name} --name NAME")
    if not folders:
        raise CardError(f"no card is named '{name}'{where_cards_are()}{nearest(str(name), list_cards())}")
    found = next((folder for folder in folders if (folder / WEIGHTS).is_file()), folders[0])
    text = (found / PROSE).read_bytes()
    if others := [folder for folder in folders if (folder / PROSE).read_bytes() != text]:
        message = f"several cards are named '{name}': {found} is used; for the other, write its folder, {others[0]}"
        warnings.warn(message, ZooWarning, stacklevel=3)
    return found


def where_cards_are() -> str:
    """The part of a message that says where cards were looked for."""
    folders = " or ".join(str(folder) for folder in card_folders())
    return f" in {folders} (ZOO_CHECKPOINTS names the folder of your own)"


def read_front_matter(path: Path) -> dict[str, Any]:
    """The YAML block between the first two lines of a card that are ``---``.

    Raises:
        CardError: there is none, or it is not a YAML mapping.
    """
    try:
        match = _FRONT_MATTER.match(path.read_text(encoding="utf-8"))
        content = yaml.safe_load(match[1]) if match else None
    except (
        UnicodeDecodeError,
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # a date out of range is a ValueError
        raise CardError(f"the front matter of {path} is not readable YAML: {error}") from error
    if not isinstance(content, dict):
        raise CardError(f"{path} has no YAML front matter between two lines of ---")
    return content


def check_files(card: Card) -> None:
    """Check that every file of a card is there, is not a pickle, and has the size and hash of its record.

    Raises:
        CardError: naming the file and what is wrong with it.
    """
    listed = {file.name for file in card.record.files}
    if unlisted := {name for name in (RECIPE, WEIGHTS) if name not in listed}:
        raise CardError(f"the record of card '{card.name}' does not list {' and '.join(sorted(unlisted))}")
    for file in sorted(card.record.files, key=lambda file: file.name != WEIGHTS):
        path = card.folder / file.name
        if not path.is_file():
            raise CardError(
                f"card '{card.name}' lacks its file {file.name} ({file.size / 1e6:.1f} MB); fetch the card with "
                f"`zoo pull OWNER/{card.name}`, or set ZOO_CHECKPOINTS to the checkpoints/ folder of a checkout"
            )
        refuse_pickle(path)
        if path.stat().st_size != file.size or sha256_of(path) != file.sha256:
            raise CardError(
                f"{path} is not the file that card '{card.name}' was published with (size or sha256 differ)"
            )
    if unlisted := {path.name for path in card.folder.glob("*.safetensors")} - listed:
        raise CardError(f"card '{card.name}' has weights that its record does not list: {', '.join(sorted(unlisted))}")


def refuse_pickle(path: Path) -> None:
    """Raise CardError for a file that is a pickle, or a torch archive (a zip of pickles), by its name or by what it holds.

    A file whose header is that of safetensors is none, whatever its first byte: 0x80, with which pickles begin, is also the
    low byte of some header lengths.
    """
    named = path.suffix in PICKLES
    with path.open("rb") as file:
        start = file.read(2)
    if named or ((start[:1] == b"\x80" or start == b"PK") and not has_safetensors_header(path)):
        raise CardError(f"{path} is a pickle; the zoo loads safetensors only, since a pickle can run code")


def has_safetensors_header(path: Path) -> bool:
    """Whether a file begins with the length of a JSON object and that object, as safetensors does."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _MAX_HEADER):
            return False
        try:
            return isinstance(json.loads(file.read(length)), dict)
        except (ValueError, RecursionError):
            return False


def read_safetensors(path: Path) -> "dict[str, torch.Tensor]":
    """The weights of a safetensors file, as they are stored.

    Raises:
        CardError: the file is a pickle, not a safetensors file, or holds weights that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from zoo.finite import nonfinite_names

    refuse_pickle(path)
    try:
        weights: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise CardError(f"{path} is not a safetensors file: {error}") from error
    if names := nonfinite_names(weights):
        raise CardError(f"{path} has weights that are not finite numbers: {', '.join(names[:3])}")
    return weights


def read_weights(card: Card) -> "dict[str, torch.Tensor]":
    """The trained weights of a card, hashes checked, floating-point ones as float32.

    Raises:
        CardError: a file is missing, changed, or not safetensors.
    """
    check_files(card)
    weights = read_safetensors(card.folder / WEIGHTS)
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


def named_cards(start: str | Sequence[str] | None) -> list[Card]:
    """The cards that an ``init_from`` names.

    Raises:
        CardError: a card is missing.
    """
    return [read_card(name) for name in ([start] if isinstance(start, str) else start or [])]


def card_chain(start: str | Sequence[str] | None) -> list[Card]:
    """The cards of a recipe's ``init_from``, each after those that it starts from itself.

    Raises:
        CardError: a card is missing, or there is a circular ``init_from`` reference.
    """
    chain: list[Card] = []
    _follow(start, chain, [])
    return chain


def _follow(start: str | Sequence[str] | None, chain: list[Card], above: list[Path]) -> None:
    """Append cards to ``chain``, bases first; ``above`` are the folders of those that start from them."""
    for card in named_cards(start):
        if card.folder in above:
            raise CardError(f"circular `init_from:` reference: {card.name}")
        _follow(card.recipe()["init_from"], chain, [*above, card.folder])
        if all(card.folder != other.folder for other in chain):
            chain.append(card)
