"""The one form that readers of public data sets yield: an image with labels, marked regions, a report, questions.

A reader, a registered ``annotation_source``, knows a public form and nothing of tasks. Datasets take a source in a slot and make
of its images labelled images (:mod:`zoo.data.classification.annotated`), conversations with masks
(:mod:`zoo.data.conversations.annotated`) or traces (:mod:`zoo.data.traces.annotated`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from zoo.data.annotations.masks import MaskSource
from zoo.data.io.decoded import ImageReader
from zoo.data.io.images import read_image
from zoo.data.vocabulary import label_name
from zoo.errors import ZooError, counted

PRESENT, ABSENT, UNCERTAIN = 1.0, 0.0, -1.0
"""Values of a label; a label that an image does not have is not stated."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom; right and bottom exclusive."""

IMAGE_SUFFIXES = (".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".jp2")

_MOST_LINES = 20


class AnnotationError(ZooError, ValueError):
    """A malformed data set: a line for each problem, with its file and line or record."""


@dataclass(frozen=True)
class Region:
    """What is marked on an image: a finding, a structure, or what a sentence says.

    Attributes:
        name: of the finding or structure.
        side: left or right; empty where there is none, or it is part of the name.
        boxes: in pixels, or in shares of the image if ``relative``.
        relative: whether boxes go from 0 to 1.
        mask: of the region, where the data set has one.
        sentence: that describes it, as a statement of a report.
    """

    name: str
    side: str = ""
    boxes: tuple[Box, ...] = ()
    relative: bool = False
    mask: MaskSource | None = None
    sentence: str = ""

    @property
    def label(self) -> str:
        """The region in words: "left lung"."""
        return label_name(self.name, self.side)

    @property
    def is_marked(self) -> bool:
        """Whether it has a box or a mask."""
        return bool(self.boxes) or self.mask is not None


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and what its data set says of it.

    Attributes:
        image: its file, or an index for a source that holds pixels.
        split: train, val or test; None where the data set has no splits.
        patient: None where unknown.
        labels: :data:`PRESENT`, :data:`ABSENT` or :data:`UNCERTAIN` by name; what is missing is not stated.
        regions: marked regions, and sentences without a mark.
        report: its report.
        questions: pairs of question and answer, in words.
        others: further images of the same study, as a lateral view.
    """

    image: Path | int
    split: str | None = None
    patient: str | None = None
    labels: Mapping[str, float] = field(default_factory=dict)
    regions: tuple[Region, ...] = ()
    report: str = ""
    questions: tuple[tuple[str, str], ...] = ()
    others: tuple[Path, ...] = ()


class Problems:
    """What is wrong in files, collected, so that a user sees all of it at once; and notes on what is left out by design."""

    def __init__(self) -> None:
        """Start empty."""
        self.messages: list[str] = []
        self.notes: list[str] = []

    @contextmanager
    def at(self, place: object) -> Iterator[None]:
        """Report an error of the zoo, or a missing or ill-typed field, as a problem of this place, and go on after it."""
        try:
            yield
        except ZooError as error:
            text = str(error)
            self.messages.append(text if text.startswith(str(place)) else f"{place}: {text}")
        except KeyError as error:
            self.messages.append(f"{place}: {error} is missing")
        except (ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
            self.messages.append(f"{place}: is malformed: {error}")

    def add(self, place: object, message: str) -> None:
        """Report a problem."""
        self.messages.append(f"{place}: {message}")

    def note(self, message: str) -> None:
        """Report what is left out by design."""
        self.notes.append(message)

    def raise_if_any(self) -> None:
        """Raise AnnotationError with the first problems and the number of all."""
        if self.messages:
            more = len(self.messages) - _MOST_LINES
            shown = self.messages[:_MOST_LINES] + ([f"and {counted(more, 'more problem')}"] if more > 0 else [])
            raise AnnotationError("\n".join(shown))


class AnnotationSource(ABC):
    """A reader of one public form. Its ``license``, ``source`` and ``limitations`` go to the cards of what is trained on it."""

    license: str = "that of the user's data"
    source: str = "the user's files"
    limitations: str = ""
    read_file: ImageReader = staticmethod(read_image)
    """Reads an image from a file; a dataset that keeps decoded images sets its own."""
    label_names: tuple[str, ...] = ()
    """Names of labels in their usual order, where the form fixes them."""

    @abstractmethod
    def scan(self, problems: Problems) -> list[AnnotatedImage]:
        """Read all that can be read, and report the rest."""

    def read(self) -> list[AnnotatedImage]:
        """The images of a data set without problems.

        Raises:
            AnnotationError: something is wrong; all problems at once.
        """
        problems = Problems()
        images = self.scan_images(problems)
        problems.raise_if_any()
        return images

    def scan_images(self, problems: Problems) -> list[AnnotatedImage]:
        """As :meth:`scan`; images whose file is missing are problems too, as is a data set without any."""
        before = len(problems.messages)
        images = self.scan(problems)
        if not images and len(problems.messages) == before:
            problems.add(type(self).__name__, "there are no images")
        present = []
        for image in images:
            missing = [path for path in (image.image, *image.others) if isinstance(path, Path) and not path.is_file()]
            if missing:
                problems.add(missing[0], "there is no such image")
            else:
                present.append(image)
        return present

    def read_image(self, image: Path | int) -> torch.Tensor:
        """An image (channels, height, width) in [0, 1]; from its file unless a source holds pixels."""
        assert isinstance(image, Path)
        return self.read_file(image)


def stated_labels(source: AnnotationSource, images: Sequence[AnnotatedImage]) -> list[str]:
    """Names of the labels: those that the form fixes, else all that images state, sorted."""
    stated = {name for image in images for name in image.labels}
    fixed = [name for name in source.label_names if name in stated]
    return fixed if len(fixed) == len(stated) else sorted(stated)


def find_images(folder: Path) -> dict[str, Path]:
    """Images below a folder by their names without suffix; hidden ones are left out.

    Raises:
        AnnotationError: there is no such folder, or two files have the same name.
    """
    if not folder.is_dir():
        raise AnnotationError(f"{folder}: there is no such folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or any(
            part.startswith(".") for part in path.relative_to(folder).parts
        ):
            continue
        if found.setdefault(path.stem, path) != path:
            raise AnnotationError(f"{path}: has the same name as {found[path.stem]}; which one is meant?")
    return found


def only_file(folder: Path, pattern: str) -> Path:
    """The one file in a folder that matches a pattern, as ``mimic-cxr-*-split.csv*``.

    Raises:
        AnnotationError: there is none, or there are several.
    """
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        several = ", ".join(file.name for file in files)
        raise AnnotationError(
            f"{folder}: has {'several files' if files else 'no file'} {pattern}{': ' + several if files else ''}"
        )
    return files[0]


def merge_images(images: Sequence[AnnotatedImage]) -> list[AnnotatedImage]:
    """Images that are listed several times, once for each region, as one each; labels and regions together."""
    merged: dict[Path | int, AnnotatedImage] = {}
    for image in images:
        known = merged.get(image.image)
        if known is not None:
            image = replace(known, labels={**known.labels, **image.labels}, regions=(*known.regions, *image.regions))
        merged[image.image] = image
    return list(merged.values())
