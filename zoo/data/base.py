"""The base of all datasets: seeded loaders that processes divide exactly and that resume within an epoch."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, DistributedSampler, WeightedRandomSampler, default_collate

from zoo.data.io.decoded import ImageReader, image_reader
from zoo.errors import ArgumentError, ZooError
from zoo.image_transform import ImageTransform
from zoo.ranges import BatchSize, Processes, Seed
from zoo.registry import Injected

Sample = dict[str, Any]
Item = TypeVar("Item")
INDEX = "index"
"""Key of a sample's position in its split, in batches for evaluation."""

_STEPS_SORTED = 8
"""Samples of this many steps are sorted by length together, where lengths are known."""


class EmptySplitError(ZooError, ValueError):
    """A split without samples, where some are needed."""


@dataclass(frozen=True, kw_only=True)
class LoaderSpec:
    """How batches are loaded. In a recipe, the fields are arguments of the dataset.

    Attributes:
        batch_size: samples of a training step and process.
        eval_batch_size: samples of an evaluation step and process; ``batch_size`` if None.
        num_workers: loader processes; 0 loads in the training process.
        drop_last: leave out a last training batch that is not full, unless it is the only one.
        seed: of the order of the training samples, and of what else the dataset samples.
        cache: whether decoded images are kept in the zoo's cache, so that each file is decoded once.

    Raises:
        ArgumentError: a batch size is not positive, or the number of processes negative.
    """

    batch_size: BatchSize = 16
    eval_batch_size: BatchSize | None = None
    num_workers: Processes = 0
    drop_last: bool = False
    seed: Annotated[Seed, Injected] = 0
    cache: bool = False

    def __post_init__(self) -> None:
        """Check the sizes."""
        for name, least in (("batch_size", 1), ("eval_batch_size", 1), ("num_workers", 0)):
            if (value := getattr(self, name)) is not None and value < least:
                raise ArgumentError(f"{name} is {value}; it must be at least {least}")


class ExampleImage(NamedTuple):
    """An image (height, width) to look at, with a title and the masks (height, width) to outline on it."""

    image: np.ndarray
    title: str
    masks: list[np.ndarray]


class Records(Generic[Item]):
    """One item per sample that is not a tensor: a record, the turns of a conversation.

    Lightning searches lists and mappings of a batch for tensors, and refuses frozen dataclasses in them; it leaves this class as
    it is.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        """Hold one item per sample."""
        self._items = list(items)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        """Each sample's item."""
        return iter(self._items)

    def __getitem__(self, index: int) -> Item:
        """The item of one sample."""
        return self._items[index]


class Indexed(Dataset[Sample]):
    """Samples with their position in the split, so that the outputs of several processes can be sorted."""

    def __init__(self, dataset: Dataset[Sample]) -> None:
        """Wrap a dataset."""
        self.dataset = dataset

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Sample:
        """A sample and its ``index``."""
        return {**self.dataset[index], INDEX: index}


def collate(samples: list[Sample]) -> dict[str, Any]:
    """Stack tensors and numbers; everything else becomes a list or :class:`Records`, as by :func:`to_list`."""
    batch: dict[str, Any] = {}
    for key, first in samples[0].items():
        values = [sample[key] for sample in samples]
        batch[key] = default_collate(values) if isinstance(first, torch.Tensor | int | float) else to_list(values)
    return batch


def to_list(values: list[Any]) -> list[Any] | Records[Any]:
    """Tensors, numbers, texts and lists of them as a list; everything else as :class:`Records`."""

    def is_plain(value: Any) -> bool:
        return isinstance(value, torch.Tensor | str | int | float) or (
            isinstance(value, list) and all(map(is_plain, value))
        )

    return values if all(map(is_plain, values)) else Records(values)


class ResumableSampler(DistributedSampler[Any]):
    """torch's DistributedSampler that, in the epoch a run resumes in, skips the batches that were trained on.

    Where the dataset has the ``lengths`` of its samples, those of a step are of similar length, to reduce padding. Where it has their
    ``sample_weights``, as many samples are drawn with replacement, each with its weight.
    """

    def __init__(
        self, dataset: Dataset[Sample], world_size: int, rank: int, seed: int, batch_size: int, start: tuple[int, int]
    ) -> None:
        """Start in epoch ``start[0]`` after ``start[1]`` batches of this process."""
        super().__init__(dataset, num_replicas=world_size, rank=rank, seed=seed)
        self._batch_size = batch_size
        self.start_at(*start)

    def start_at(self, epoch: int, batches: int) -> None:
        """Start in an epoch after a number of batches of this process."""
        self._start_epoch, self._skipped_batches = epoch, batches
        self.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        """Indices of this process."""
        if getattr(self.dataset, "sample_weights", None) is not None:
            order = self._weighted()
        else:
            order = self._grouped_by_length() if hasattr(self.dataset, "lengths") else super().__iter__()
        return islice(order, self._skipped_batches * self._batch_size if self.epoch == self._start_epoch else 0, None)

    def _weighted(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        weights = self.dataset.sample_weights  # type: ignore[attr-defined]
        order = WeightedRandomSampler(weights, self.total_size, generator=generator)
        return islice(order, self.rank, None, self.num_replicas)

    def _grouped_by_length(self) -> Iterator[int]:
        from transformers.trainer_pt_utils import get_length_grouped_indices

        step, generator = self._batch_size * self.num_replicas, torch.Generator().manual_seed(self.seed + self.epoch)
        order = get_length_grouped_indices(self.dataset.lengths, step, _STEPS_SORTED, generator)  # type: ignore[attr-defined]
        order += order[: self.total_size - len(order)]
        return iter(order[self.rank : self.total_size : self.num_replicas])


class ZooData(LightningDataModule):
    """A dataset with the splits train, val and test."""

    license: str = "that of the user's data"
    source: str = "the user's files"
    limitations: str = ""
    is_rendered: bool = False
    """Whether the zoo makes the samples, which takes time; else they are read from the user's files."""

    def __init__(self, loader: LoaderSpec) -> None:
        """Set how batches are loaded.

        Raises:
            ArgumentError: images are to be kept decoded that are not read from files.
        """
        super().__init__()
        self.loader = loader
        if loader.cache and self.is_rendered:
            raise ArgumentError(
                f"cache is for images in files; {type(self).__name__} keeps its rendered images in any case"
            )
        self.read_file: ImageReader = image_reader(loader.cache)
        """Reads an image from a file; see :func:`~zoo.data.io.images.read_image`."""
        self.test_split = "test"
        """The split that ``Trainer.test`` measures on."""
        self._start = (0, 0)
        self._sampler: ResumableSampler | None = None
        self._splits: dict[str, Dataset[Sample]] = {}

    @abstractmethod
    def open_split(self, name: str) -> Dataset[Sample]:
        """Open one of train, val and test; build it if the cache lacks it."""

    def metadata(self) -> dict[str, Any]:
        """What methods and metrics may need to know of the data; plain values go to a method's injected arguments.

        Keys, where a dataset has them: ``class_names`` (classification), ``words`` (of a word-level tokenizer), ``pieces`` (of
        words, :mod:`zoo.data.traces.pieces`), ``prompt`` (that
        asks for a report), ``vocabulary`` (:class:`~zoo.data.vocabulary.FindingVocabulary`), ``label_names`` and
        ``region_names`` (lists of everything that a mask can be of), ``labeler`` (:class:`~zoo.data.vocabulary.ReportLabeler`).
        """
        return {}

    def use_image_transform(self, transform: ImageTransform | None) -> None:
        """Prepare images by the transform of the method that they are for, if that has one; nothing by default."""

    def example_images(self, count: int) -> list[ExampleImage]:
        """The first images of the training split, to show what the dataset looks like."""
        samples = [self.split("train")[index] for index in range(count)]
        images = [sample["image"] if "image" in sample else sample["images"][0] for sample in samples]
        return [
            ExampleImage(image[0].numpy(), str(sample.get("label", "")), [])
            for image, sample in zip(images, samples, strict=True)
        ]

    def collate(self, samples: list[Sample]) -> dict[str, Any]:
        """Collate samples into a batch; see :func:`collate`."""
        return collate(samples)

    def split(self, name: str) -> Dataset[Sample]:
        """The samples of one split.

        Raises:
            ArgumentError: there is no such split.
        """
        if name not in ("train", "val", "test"):
            raise ArgumentError(f"no split '{name}'; there are train, val and test")
        if name not in self._splits:
            self._splits[name] = self.open_split(name)
            if name == "train" and not len(self._splits[name]):  # type: ignore[arg-type]
                raise EmptySplitError(f"the training split of {type(self).__name__} has no samples")
        return self._splits[name]

    def prepare_data(self) -> None:
        """Build the splits of the trainer's stage that the cache lacks; Lightning calls it in one process only."""
        stage = str(self.trainer.state.fn.value) if self.trainer and self.trainer.state.fn else "fit"
        for name in {"fit": ("train", "val"), "validate": ("val",)}.get(stage, (self.test_split,)):
            self.split(name)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled by (seed, epoch). Two processes with batch size b train on the samples of one with batch size 2b."""
        dataset, loader = self.split("train"), self.loader
        world_size, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        self._sampler = ResumableSampler(dataset, world_size, rank, loader.seed, loader.batch_size, self._start)
        return DataLoader(
            dataset,
            batch_size=loader.batch_size,
            sampler=self._sampler,
            num_workers=loader.num_workers,
            drop_last=loader.drop_last and len(self._sampler) >= loader.batch_size,
            collate_fn=self.collate,
            # The loader seeds its workers from this generator, which leaves a resumed run's global random state as it is.
            generator=torch.Generator().manual_seed(loader.seed),
        )

    def state_dict(self) -> dict[str, int]:
        """Epoch and batch to resume at. Lightning's own count of loaded batches runs ahead of those trained on."""
        assert self.trainer is not None
        loop = self.trainer.fit_loop
        epoch, batch = loop.epoch_progress.current.completed, loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        if batch == self.trainer.num_training_batches:
            epoch, batch = epoch + 1, 0
        return {"epoch": epoch, "batch": batch}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Resume there. Under DeepSpeed, which restores after its set-up, Lightning has the loader already."""
        self._start = (state_dict["epoch"], state_dict["batch"])
        if self._sampler is not None:
            self._sampler.start_at(*self._start)

    def eval_dataloader(self, split: str, *, distributed: bool = True) -> DataLoader[Any]:
        """A split in order, each sample with its ``index``; divided among the processes if ``distributed``."""
        dataset = self.split(split)
        world_size = self.trainer.world_size if self.trainer and distributed else 1
        rank = self.trainer.global_rank if self.trainer else 0
        sampler: DistributedSampler[Any] | None = (
            DistributedSampler(dataset, world_size, rank, shuffle=False) if world_size > 1 else None
        )
        return DataLoader(
            Indexed(dataset),
            batch_size=self.eval_batch_size(split),
            sampler=sampler,
            num_workers=self.loader.num_workers,
            collate_fn=self.collate,
        )

    def eval_batch_size(self, split: str) -> int:
        """Samples of a split that are evaluated at a time."""
        return self.loader.eval_batch_size or self.loader.batch_size

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation split in order."""
        return self.eval_dataloader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """The test split, or :attr:`test_split`, in order."""
        return self.eval_dataloader(self.test_split)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The images of the test split in order."""
        return self.eval_dataloader("test")
