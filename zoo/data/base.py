"""What every dataset shares: seeded loaders that several processes split exactly and that resume in mid-epoch."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate

from zoo.errors import ArgumentError, ZooError

Sample = dict[str, Any]
Item = TypeVar("Item")
_STEPS_SORTED = 8
"""Samples of so many steps are sorted by length together, where lengths are known."""


INDEX = "index"
"""Key of a sample's place in its split, in batches for evaluation."""


class EmptySplitError(ZooError, ValueError):
    """A split without samples, where some are needed."""


class ExampleImage(NamedTuple):
    """An image (height, width) to look at, with a title and the masks (height, width) to outline on it."""

    image: np.ndarray
    title: str
    masks: list[np.ndarray]


class Records(Generic[Item]):
    """What a batch holds for each sample beside tensors: records, turns.

    Lightning looks into lists and mappings for tensors, and refuses the frozen dataclasses that it finds there; these it
    leaves as they are.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        """Keep one item a sample."""
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
    """Samples with their place in the split, so that what several processes measured can be put in order."""

    def __init__(self, dataset: Dataset[Sample]) -> None:
        """View a dataset."""
        self.dataset = dataset

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Sample:
        """A sample and its ``index``."""
        return {**self.dataset[index], INDEX: index}


def collate(samples: list[Sample]) -> dict[str, Any]:
    """Stack tensors and numbers; everything else becomes a list or, where it is no text, :class:`Records`."""
    batch: dict[str, Any] = {}
    for key, first in samples[0].items():
        values = [sample[key] for sample in samples]
        batch[key] = default_collate(values) if isinstance(first, torch.Tensor | int | float) else listed(values)
    return batch


def listed(values: list[Any]) -> list[Any] | Records[Any]:
    """Tensors, lists of tensors, numbers and texts as a list; everything else as :class:`Records`."""

    def plain(value: Any) -> bool:
        return isinstance(value, torch.Tensor | str | int | float) or (
            isinstance(value, list) and all(map(plain, value))
        )

    return values if all(map(plain, values)) else Records(values)


class ResumableSampler(DistributedSampler[Any]):
    """torch's DistributedSampler that, in the epoch a run resumes in, leaves out what was seen already.

    Where the dataset knows the ``lengths`` of its samples, those of a step are of similar length, so that little is padded.
    """

    def __init__(
        self, dataset: Dataset[Sample], world: int, rank: int, seed: int, batch_size: int, start: tuple[int, int]
    ) -> None:
        """Start in epoch ``start[0]`` after ``start[1]`` batches of this process."""
        super().__init__(dataset, num_replicas=world, rank=rank, seed=seed)
        self._batch_size = batch_size
        self.start_at(*start)

    def start_at(self, epoch: int, batches: int) -> None:
        """Start in an epoch after so many batches of this process."""
        self._start_epoch, self._seen = epoch, batches
        self.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        """Indices of this process."""
        order = self._grouped() if hasattr(self.dataset, "lengths") else super().__iter__()
        return islice(order, self._seen * self._batch_size if self.epoch == self._start_epoch else 0, None)

    def _grouped(self) -> Iterator[int]:
        from transformers.trainer_pt_utils import get_length_grouped_indices

        step, generator = self._batch_size * self.num_replicas, torch.Generator().manual_seed(self.seed + self.epoch)
        order = get_length_grouped_indices(self.dataset.lengths, step, _STEPS_SORTED, generator)  # type: ignore[attr-defined]
        order += order[: self.total_size - len(order)]
        return iter(order[self.rank : self.total_size : self.num_replicas])


class ZooData(LightningDataModule):
    """A dataset with the splits train, val and test."""

    license: ClassVar[str] = "that of the user's own data"
    source: ClassVar[str] = "files of the user's own"
    limitations: ClassVar[str] = ""

    def __init__(self, batch_size: int, num_workers: int, seed: int) -> None:
        """Set how samples are drawn.

        Args:
            batch_size: samples a step and process.
            num_workers: loader processes; 0 loads in the training process.
            seed: of sampling and order.

        Raises:
            ArgumentError: a size is not positive.
        """
        super().__init__()
        if batch_size < 1 or num_workers < 0:
            raise ArgumentError(
                f"batch_size is {batch_size} and num_workers {num_workers}; they must be at least 1 and 0"
            )
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.test_split = "test"
        """The split that ``Trainer.test`` measures on."""
        self._start = (0, 0)
        self._sampler: ResumableSampler | None = None
        self._splits: dict[str, Dataset[Sample]] = {}

    @abstractmethod
    def open_split(self, name: str) -> Dataset[Sample]:
        """Open (and, where need be, build) one of train, val and test."""

    def metadata(self) -> dict[str, Any]:
        """What methods and metrics may need to know of the data; plain values go to a method's injected arguments.

        Keys, where a dataset has them: ``class_names`` (classification), ``words`` (of a word-level tokenizer), ``prompt`` (what
        a report is asked for with), ``vocabulary`` (:class:`~zoo.data.vocabulary.FindingVocabulary`), ``target_names`` (a list
        of everything that a mask can be of), ``labeler`` (:class:`~zoo.data.vocabulary.ReportLabeler`).
        """
        return {}

    def example_images(self, count: int) -> list[ExampleImage]:
        """The first images of the training split, to show what the dataset looks like."""
        samples = [self.split("train")[index] for index in range(count)]
        images = [sample["image"] if "image" in sample else sample["images"][0] for sample in samples]
        return [
            ExampleImage(image[0].numpy(), str(sample.get("label", "")), [])
            for image, sample in zip(images, samples, strict=True)
        ]

    def collate(self, samples: list[Sample]) -> dict[str, Any]:
        """Samples to a batch; see :func:`collate`."""
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
        """Build what the trainer's stage needs and the cache lacks; Lightning calls it in one process only."""
        stage = str(self.trainer.state.fn.value) if self.trainer and self.trainer.state.fn else "fit"
        for name in {"fit": ("train", "val"), "validate": ("val",)}.get(stage, (self.test_split,)):
            self.split(name)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled by (seed, epoch). Two processes with batch b see what one sees with batch 2b."""
        dataset = self.split("train")
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        self._sampler = ResumableSampler(dataset, world, rank, self.seed, self.batch_size, self._start)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=self._sampler,
            num_workers=self.num_workers,
            collate_fn=self.collate,
            # The loader's own draws come from here, so that a resumed run's global random state is undisturbed.
            generator=torch.Generator().manual_seed(self.seed),
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
        """Resume there; Lightning has asked for the loader already where the strategy restores after its set-up (DeepSpeed)."""
        self._start = (state_dict["epoch"], state_dict["batch"])
        if self._sampler is not None:
            self._sampler.start_at(*self._start)

    def eval_dataloader(self, split: str, *, whole: bool = False) -> DataLoader[Any]:
        """A split in its own order, each sample with its ``index``; several processes share it unless ``whole``."""
        dataset, size = self.split(split), self.eval_batch_size_of(split)
        world = self.trainer.world_size if self.trainer and not whole else 1
        rank = self.trainer.global_rank if self.trainer else 0
        sampler: DistributedSampler[Any] | None = (
            DistributedSampler(dataset, world, rank, shuffle=False) if world > 1 else None
        )
        return DataLoader(
            Indexed(dataset), batch_size=size, sampler=sampler, num_workers=self.num_workers, collate_fn=self.collate
        )

    def eval_batch_size_of(self, split: str) -> int:
        """Samples of a split that are measured at a time; those of a training step by default."""
        return self.batch_size

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation split in its own order."""
        return self.eval_dataloader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """The test split, or what :attr:`test_split` says, in its own order."""
        return self.eval_dataloader(self.test_split)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The images of the test split in its own order."""
        return self.eval_dataloader("test")
