"""Cards to and from Hugging Face Hub repositories, and between folders, hashes checked on the way in."""

import shutil
import tempfile
from pathlib import Path

from zoo.cards.store import PROSE, CardError, check_files, read_card, swap
from zoo.paths import cache_folder

_WANTED = [PROSE, "recipe.yaml", "model.safetensors", "*.png"]


def push(name: str, repo: str) -> str:
    """Upload a card to the model repository ``OWNER/NAME`` with the user's own token.

    Returns:
        The address of the commit.

    Raises:
        CardError: the card is damaged.
        huggingface_hub.errors.HfHubHTTPError: the hub refuses.
    """
    from huggingface_hub import HfApi

    card = read_card(name)
    check_files(card)
    api = HfApi()
    api.create_repo(repo, exist_ok=True)
    message = f"{card.name} {card.record.version}"
    commit = api.upload_folder(repo_id=repo, folder_path=card.folder, allow_patterns=_WANTED, commit_message=message)
    return str(commit.commit_url)


def pull(source: str, revision: str | None = None) -> Path:
    """Fetch a card from the repository ``OWNER/NAME``, or from a folder, into the cache.

    Raises:
        CardError: it is no card, or its files are not those of its record; nothing is kept then.
        huggingface_hub.errors.HfHubHTTPError: the hub has no such repository.
    """
    folder = cache_folder() / "cards"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".pull-") as scratch:
        fetched = Path(scratch) / "card"
        if Path(source).is_dir():
            shutil.copytree(source, fetched, ignore=shutil.ignore_patterns(".*"))
        else:
            from huggingface_hub import snapshot_download

            snapshot_download(source, revision=revision, local_dir=fetched, allow_patterns=_WANTED)
            shutil.rmtree(fetched / ".cache", ignore_errors=True)
        if not (fetched / PROSE).is_file():
            raise CardError(f"{source} is no card: it has no {PROSE}")
        card = read_card(fetched)
        check_files(card)
        target = folder / card.name
        swap(fetched, target)
    return target
