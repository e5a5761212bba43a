"""``from_pretrained`` and ``push_to_hub`` of methods, by huggingface_hub's mixin: a repository is a card, its hashes checked."""

from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import ModelHubMixin

from zoo.cards.hub import copy_card, pull, push
from zoo.cards.store import Card, CardError, read_card, read_weights
from zoo.errors import ArgumentError


class HubMethod(ModelHubMixin):
    """Loads a method from a card and pushes the card that it was loaded from; a method without a card is published first."""

    card_folder: Path | None = None
    """Folder of the card that the method was loaded from."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        **options: Any,
    ) -> Self:
        """Load a card of the Hub, or one that is here, in evaluation mode.

        Hashes of all files are checked, weights are safetensors only, and the frozen base must be that of the training.

        Args:
            pretrained_model_name_or_path: ``OWNER/NAME`` on the Hub, pulled into the zoo's cache; or the name or folder of a card.
            revision: branch, tag or commit of the repository.
            token: of the account; that of ``hf auth login`` if None.
            options: ``settings`` and ``for_training`` of :func:`zoo.load`.

        Raises:
            CardError: it is no card, is damaged, or is one of another method.
            ArgumentError: an argument of the mixin that cards have no use for, such as ``cache_dir``.
            huggingface_hub.errors.HfHubHTTPError: the hub has no such repository.
        """
        if unknown := sorted(options.keys() - {"settings", "for_training"}):
            raise ArgumentError(
                f"from_pretrained takes no {', '.join(unknown)}: a card is pulled into the zoo's cache (ZOO_CACHE) as it is"
            )
        name, source = str(pretrained_model_name_or_path), Path(pretrained_model_name_or_path)
        if not source.is_dir() and name.count("/") == 1:
            source = pull(name, revision, token=token)
        import zoo  # loading builds methods, and is above them

        method = zoo.load(source, **options)
        if not isinstance(method, cls):
            raise CardError(f"{name} is a {type(method).__name__}, not a {cls.__name__}; use zoo.load, or the former")
        return method

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Copy the card of this method into a folder, for what reads repositories.

        Raises:
            CardError: the method has no card, its weights are no longer those of the card, or the folder exists.
            ArgumentError: an argument of the mixin that cards have no use for.
        """
        if options:
            raise ArgumentError(f"save_pretrained takes no {', '.join(sorted(options))}: a card is copied as it is")
        folder = Path(save_directory)
        if folder.exists():
            raise CardError(f"{folder} exists; choose another folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        copy_card(self._own_card(), folder)

    def push_to_hub(  # type: ignore[override]
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, commit_message: str | None = None
    ) -> str:
        """Upload the card of this method to the model repository ``OWNER/NAME``.

        Returns:
            The address of the commit.

        Raises:
            CardError: the method has no card, or its weights are no longer those of the card: publish them first.
            huggingface_hub.errors.HfHubHTTPError: the hub refuses.
        """
        return push(self._own_card().folder, repo_id, private=private, token=token, message=commit_message)

    def _own_card(self) -> Card:
        if self.card_folder is None:
            raise CardError(
                "this method was not loaded from a card; train it by a recipe, and publish the run: zoo publish RUN --name NAME"
            )
        card = read_card(self.card_folder)
        stored = read_weights(card)
        current: dict[str, torch.Tensor] = self.trained_state()  # type: ignore[attr-defined]
        same = current.keys() == stored.keys() and all(
            torch.equal(value.detach().cpu().to(stored[name].dtype), stored[name]) for name, value in current.items()
        )
        if not same:
            raise CardError(
                f"the weights are no longer those of card '{card.name}', whose numbers are of others; publish them first"
            )
        return card
