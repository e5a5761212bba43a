"""Cards to and from Hugging Face Hub repositories, and between folders, hashes checked on the way in."""

import shutil
import warnings
from pathlib import Path
from typing import Any

from zoo.cards.store import PROBE, PROSE, RECIPE, WEIGHTS, Card, CardError, check_files, list_cards, read_card
from zoo.errors import ZooWarning
from zoo.files import replace_folder, scratch_folder
from zoo.paths import checkpoints_folder, hub_owner, pulled_cards_folder
from zoo.registry import nearest

_CARD_FILES = [PROSE, RECIPE, WEIGHTS, PROBE, "*.png"]
"""What is fetched; of it, what the record lists is kept."""


def push(
    name: str | Path,
    repo: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    message: str | None = None,
) -> str:
    """Upload a card to the model repository ``OWNER/NAME`` with the user's own token.

    Args:
        name: of the card, or its folder.
        repo: is created if there is none.
        private: whether a new repository is; as the account has it if None.
        token: that of ``hf auth login`` if None.
        message: of the commit; name and version of the card if None.

    Returns:
        The address of the commit.

    Raises:
        CardError: the card is damaged.
        huggingface_hub.errors.HfHubHTTPError: the hub refuses.
    """
    from huggingface_hub import HfApi

    card = read_card(name)
    check_files(card)
    files = [PROSE, *(file.name for file in card.record.files)]
    _refuse_links(card.folder, files)
    of_api: dict[str, Any] = {"token": token} if token else {}
    of_repo: dict[str, Any] = {} if private is None else {"private": private}
    api = HfApi(**of_api)
    api.create_repo(repo, exist_ok=True, **of_repo)
    message = message or f"{card.name} {card.record.version}"
    commit = api.upload_folder(repo_id=repo, folder_path=card.folder, allow_patterns=files, commit_message=message)
    return str(commit.commit_url)


def pull(source: str, revision: str | None = None, *, token: str | bool | None = None) -> Path:
    """Fetch a card into the cache.

    Args:
        source: the repository ``OWNER/NAME``, a folder, or the name of a listed card. The latter is fetched from the account
            in ``ZOO_HUB_OWNER``, and its files must have the hashes of the listed record.
        revision: branch, tag or commit of the repository.
        token: of the account; that of ``hf auth login`` if None.

    Raises:
        CardError: it is not a card, or its files are not those of its record; nothing is kept then.
        huggingface_hub.errors.HfHubHTTPError: the hub has no such repository.
    """
    folder = pulled_cards_folder()
    with scratch_folder(folder, ".pull-") as scratch:
        fetched = Path(source)
        if not fetched.is_dir():
            from huggingface_hub import snapshot_download

            fetched = scratch / "fetched"
            options: dict[str, Any] = {} if token is None else {"token": token}
            patterns = _CARD_FILES
            snapshot_download(
                _repository(source), revision=revision, local_dir=fetched, allow_patterns=patterns, **options
            )
        if not (fetched / PROSE).is_file():
            raise CardError(f"{source} is not a card: it has no {PROSE}")
        draft = copy_card(read_card(fetched.resolve()), scratch / "card")
        check_files(draft)
        if "/" not in source and not Path(source).is_dir():
            _check_listed(draft, read_card(source))
        target = folder / draft.name
        replace_folder(draft.folder, target)
    shipped = checkpoints_folder() / draft.name / PROSE
    if shipped.is_file() and shipped.read_bytes() != (target / PROSE).read_bytes():
        message = (
            f"the zoo comes with another card named '{draft.name}', which that name means; for this one, write {target}"
        )
        warnings.warn(message, ZooWarning, stacklevel=2)
    return target


def copy_card(card: Card, folder: Path) -> Card:
    """A copy of a card with its README and the files that its record lists, and nothing else."""
    files = [PROSE, *(file.name for file in card.record.files)]
    _refuse_links(card.folder, files)
    folder.mkdir()
    for name in files:
        if (card.folder / name).is_file():
            shutil.copyfile(card.folder / name, folder / name)
    return Card(folder, card.record)


def _refuse_links(folder: Path, files: list[str]) -> None:
    """Raise CardError where a file is a symbolic link, which may lead to any file of this machine."""
    if links := [name for name in files if (folder / name).is_symlink()]:
        raise CardError(f"{folder / links[0]} is a symbolic link, which is not copied; replace it by the file")


def _repository(source: str) -> str:
    """``OWNER/NAME`` as it is; the name of a listed card under the configured account."""
    if "/" in source:
        return source
    if source not in list_cards():
        raise CardError(f"no card is named '{source}'{nearest(source, list_cards())}")
    if (owner := hub_owner()) is None:
        raise CardError(f"which account holds '{source}'? Write OWNER/{source}, or set ZOO_HUB_OWNER to the account")
    return f"{owner}/{source}"


def _check_listed(card: Card, listed: Card) -> None:
    """Raise CardError where a fetched card is not the one that this version of the zoo lists."""
    if card.record.files != listed.record.files:
        raise CardError(
            f"the hub has '{card.name}' {card.record.version} with other files than {listed.record.version}, which this zoo "
            f"lists; choose its revision with --revision, or pull OWNER/{listed.name} as it is"
        )
