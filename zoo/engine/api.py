"""The zoo in a few calls, for scripts and notebooks: listing, prediction and evaluation, all in memory.

Nothing heavy is imported before it is needed.
"""

import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cards.store import CardError, list_cards, read_card
from zoo.registry import KINDS, registry

if TYPE_CHECKING:
    import torch
    from lightning import Trainer

    from zoo.config.recipe import Recipe
    from zoo.methods.predictions import Prediction
    from zoo.metrics.intervals import Measured

    Image = str | Path | torch.Tensor

_BATCH_SIZE = 8
_SEVERAL_DEVICES = ("devices", "strategy", "num_nodes")


def list_models(pattern: str = "*") -> list[str]:
    """Names of the local cards: those that come with the zoo, and those pulled.

    Args:
        pattern: shell-style wildcards: ``*``, ``?`` and ``[...]``.

    Example:
        >>> import zoo
        >>> zoo.list_models("nearl*16shot")
        ['nearl-clip-chest-drr-16shot']
    """
    return fnmatch.filter(list_cards(), pattern)


def list_components(pattern: str = "*", kind: str | None = None) -> list[str]:
    """Registered names of components, sorted.

    Args:
        pattern: shell-style wildcards: ``*``, ``?`` and ``[...]``.
        kind: of component; all kinds if None.

    Raises:
        UnknownComponentError: there is no such kind.

    Example:
        >>> import zoo
        >>> zoo.list_components("open*", kind="vision_language_encoder")
        ['open_clip']
    """
    names = {name for each in ([kind] if kind else KINDS) for name in registry(each)}
    return sorted(fnmatch.filter(names, pattern))


def predict(
    card: str | Path, images: "Image | Sequence[Image]", question: str | None = None, device: str = "auto"
) -> "list[Prediction]":
    """Predict images with a card, in this process and on one device, without writing files.

    The card is loaded in every call. For repeated predictions, load it once: ``model = zoo.load(card)``, then
    ``model.predict_image(image)``.

    Args:
        card: its name or folder.
        images: files, or tensors (1 or 3, height, width) of floating point in [0, 1] and of any sizes; one or several.
        question: about each image, for a card that answers questions.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Returns:
        A :class:`~zoo.methods.predictions.Prediction` for each image, of the card's kind (``Classification``,
        ``Segmentation``, ``Report``, ...); each has ``to_dict()`` and ``save(folder)``.

    Raises:
        CardError: the card is missing or damaged, or does not answer questions and there is one.
        ImageError: an image cannot be read, or a tensor is not an image.
        QuestionError: the question is empty or too long.
        DeviceError: there is no such device here.

    Example:
        >>> import torch, zoo
        >>> (prediction,) = zoo.predict("nearl-clip-chest-drr-16shot", torch.rand(1, 256, 256), device="cpu")
        >>> len(prediction.probabilities)
        10
    """
    from torch.utils.data import DataLoader

    from zoo.data.conversations.records import validate_question
    from zoo.engine.loading import load

    pixels = [_to_pixels(image) for image in _as_sequence(images)]
    method, recipe = load(card), read_card(card).recipe()
    if question is not None and not method.answers_questions:
        raise CardError(
            f"card '{card}' is a {type(method).__name__}, which does not answer questions; leave out `question`"
        )
    prompt = None if question is None else validate_question(question)

    def collate(batch: "list[torch.Tensor]") -> dict[str, Any]:
        return {"image": batch} if prompt is None else {"image": batch, "question": [prompt] * len(batch)}

    loader: Any = DataLoader(pixels, batch_size=_BATCH_SIZE, collate_fn=collate)  # type: ignore[arg-type]
    batches: Any = single_device_trainer(recipe, device).predict(method, loader) if pixels else []
    return [prediction for batch in batches for prediction in batch]


def evaluate(
    source: str | Path, overrides: Sequence[str] = (), split: str = "test", device: str = "auto"
) -> "dict[str, Measured]":
    """Evaluate a card or a run on a split of its data, or of other data.

    Args:
        source: name or folder of a card, or a run folder.
        overrides: ``key=value`` changes of its recipe, as ``data.classes=novel``.
        split: "train", "val" or "test".
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Returns:
        Each metric by name, with its 95% interval.

    Raises:
        CardError: there is no such card or run, it is damaged, or its weights do not fit the classes.
        RecipeError: the overrides do not fit.
        ArgumentError: there is no such split.
        DeviceError: there is no such device here.

    Example:
        >>> import zoo
        >>> zoo.evaluate("nearl-clip-chest-drr-16shot")["accuracy"]  # doctest: +SKIP
        Measured(value=0.2666..., low=0.2316..., high=0.3000..., n=600)
    """
    from zoo.engine.evaluation import evaluate as evaluate_split
    from zoo.engine.evaluation import open_evaluation

    return evaluate_split(open_evaluation(source, overrides, device), split)


def _as_sequence(images: "Image | Sequence[Image]") -> "Sequence[Image]":
    """A single image as a list of one, anything else as it is; a tensor of four dimensions is a batch."""
    is_single = isinstance(images, str | Path) or getattr(images, "ndim", None) in (2, 3)
    return [images] if is_single else images  # type: ignore[list-item, return-value]


def _to_pixels(image: "Image") -> "torch.Tensor":
    """An image (1 or 3, height, width) as float32 in [0, 1] on the CPU, read or checked."""
    import torch

    from zoo.data.io.images import check_image, read_image

    if not torch.is_tensor(image):
        return read_image(image)
    check_image(image)
    return image.detach().float().cpu()


def single_device_trainer(recipe: "Recipe", device: str) -> "Trainer":
    """A trainer for a call in memory: one device and no other process, whatever the recipe's devices and strategy."""
    from zoo.engine.trainers import inference_trainer

    trainer = {key: value for key, value in (recipe["trainer"] or {}).items() if key not in _SEVERAL_DEVICES}
    return inference_trainer(recipe.with_content(trainer=trainer), device, progress=False)
