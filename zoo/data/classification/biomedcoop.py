"""The eleven biomedical data sets of BiomedCoOp (Koleilat et al., arXiv 2411.15232), laid out as its authors share them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from zoo.data.base import LoaderSpec
from zoo.data.classification.base import Classes, DataError, read_json
from zoo.data.classification.coop_split import CoopSplit
from zoo.data.classification.preparation import Augmentation
from zoo.data.classification.sampling import ShotSampling
from zoo.ranges import PositiveInt
from zoo.registry import Unpacked, register

SetName = Literal[
    "BTMRI",
    "BUSI",
    "CHMNIST",
    "COVID_19",
    "CTKidney",
    "DermaMNIST",
    "KneeXray",
    "Kvasir",
    "LungColon",
    "OCTMNIST",
    "RETINA",
]


@register("dataset", "biomedcoop_set")
class BiomedCoOpSet(CoopSplit):
    """One of the sets: ``ROOT/SET/split_SET.json`` beside ``ROOT/SET/SET``, the folder of its images.

    The authors share them as archives, SET.zip of huggingface.co/datasets/TahaKoleilat/BiomedCoOp.
    """

    source: str = "the authors' archives, huggingface.co/datasets/TahaKoleilat/BiomedCoOp"
    template: str = "a photo of a {}."

    def __init__(
        self,
        set: SetName = "BTMRI",
        root: str = "data",
        texts: str | None = None,
        shots: PositiveInt | None = 16,
        shot_sampling: ShotSampling = "dassl",
        classes: Classes = "all",
        augment: Augmentation = False,
        loader: Annotated[LoaderSpec, Unpacked] = LoaderSpec(),
    ) -> None:
        """Read the split file, and the descriptions of classes if there are any.

        Args:
            set: which of the eleven.
            root: folder that holds a folder for each.
            texts: JSON file of descriptions, {class name: [text, ...]}. Those of the paper, 50 a class by a language model, are the
                authors' ``BIOMEDCOOP_TEMPLATES`` in their trainers/prompt_templates.py.
            shots: training images per class; all if None.
            shot_sampling: how shots are sampled; "dassl" takes the authors' own.
            classes: all, or the base or novel half.
            augment: how training images are changed at random: true shifts, rotates and scales them a little, "crop" and
                "crop_flip" take a part of 8 to 100% of the area, "large_crop_flip" of 50 to 100%.
            loader: how batches are loaded; its seed samples the shots.

        Raises:
            DataError: the set is not there, or a file is malformed.
        """
        folder = Path(root) / set
        if not folder.is_dir():
            raise DataError(
                f"{folder}: there is no such folder; unpack {set}.zip of huggingface.co/datasets/TahaKoleilat/BiomedCoOp in {root}"
            )
        files = (str(folder / f"split_{set}.json"), str(folder / set))
        super().__init__(
            *files, shots=shots, shot_sampling=shot_sampling, classes=classes, augment=augment, loader=loader
        )
        self._texts = read_class_texts(Path(texts)) if texts else {}

    @property
    def class_texts(self) -> Mapping[str, Sequence[str]]:
        """The descriptions of the file."""
        return self._texts


def read_class_texts(file: Path) -> dict[str, list[str]]:
    """Descriptions of classes from a JSON file.

    Raises:
        DataError: the file is missing or is not of the form {class name: [text, ...]}.
    """
    content = read_json(file)
    lists = list(content.values()) if isinstance(content, dict) else [None]
    if not all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists):
        raise DataError(f"{file}: is not of the form {{class name: [text, ...]}}")
    texts: dict[str, list[str]] = content
    return texts
