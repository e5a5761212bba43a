"""The base class of methods: a native LightningModule with a frozen base, of which only trained weights are saved.

``Trainer.fit``, ``.validate``, ``.test`` and ``.predict`` work on a method and a data module as they are. Subclasses define
:meth:`ZooModule.losses`, :meth:`ZooModule.evaluation_step`, :meth:`ZooModule.metrics` and :meth:`ZooModule.predict_images`.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from lightning import LightningModule
from torch import nn

from zoo.config.building import build
from zoo.data.base import Records, ZooData
from zoo.data.io.images import check_image
from zoo.data.vocabulary import FindingVocabulary, ReportLabeler
from zoo.errors import MissingOptimizerError, UnsupportedError, WeightsError
from zoo.finite import NonFiniteError, nonfinite_names
from zoo.image_transform import ImageTransform
from zoo.methods.distributed import INDEX, Outputs, any_process, gather_outputs, random_states, restore_random_state
from zoo.methods.hub import HubMethod
from zoo.methods.predictions import Prediction
from zoo.methods.sharding import is_sharded, shard
from zoo.precision import HALF, BasePrecision, autocast_to, base_dtype, cast_base, dtype_of

__all__ = ["LossModule", "Metric", "Outputs", "ZooModule"]

Metric = Callable[[Outputs], float]


class ZooModule(HubMethod, LightningModule):
    """A method: components wired to losses, trainable by Lightning, measured sample by sample.

    Attributes named in ``frozen`` are public base models: their parameters are saved only if they require gradients, their
    buffers never.
    """

    frozen: ClassVar[tuple[str, ...]] = ()
    base_prefixes: ClassVar[dict[str, str]] = {}
    """Maps prefixes of weights in another method's card to prefixes in this method."""
    extended_weights: ClassVar[tuple[str, ...]] = ()
    """Ends of names of weights that may have more rows than in the card that training starts from: new tokens are last."""
    uniform_steps: ClassVar[bool] = False
    """Whether every process calls the same modules in every step, through their forward, as DeepSpeed requires.

    ZeRO-2 reduces gradients in the order in which they arrive, ZeRO-3 gathers weights in the order in which they are used.
    Where the order differs between processes, the first gives wrong sums without an error and the second deadlocks.
    """
    task: ClassVar[str] = ""
    """Task, by Hugging Face's name."""
    answers_questions: ClassVar[bool] = False
    """Whether :meth:`predict_images` takes ``questions``."""
    input_format: ClassVar[str] = ""
    output_format: ClassVar[str] = ""
    intended_use: ClassVar[str] = "Research and teaching on medical vision-language methods."

    def __init__(self) -> None:
        """Start without an optimizer; training sets the recipe's."""
        super().__init__()
        self.optimizer_recipe: dict[str, Any] | None = None
        self.scheduler_recipe: dict[str, Any] | None = None
        self.test_outputs: Outputs = {}
        """After a test: the outputs of all samples of all processes, for confidence intervals."""
        self._collected: list[Outputs] = []
        self.use_metadata({})
        self._random_states: Sequence[dict[str, Any]] | None = None
        self._restored = False
        self._fingerprint: str | None = None
        self.base_precision: BasePrecision | None = None
        """Precision of the frozen base; as stored if None."""
        self.image_transform: ImageTransform | None = None  # of data of files; None where the method prepares images

    # Defined by subclasses.

    @abstractmethod
    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """``loss``, which is minimised, and its parts by name."""

    @abstractmethod
    def evaluation_step(self, batch: dict[str, Any]) -> Outputs:
        """Inputs of the metrics for a batch: tensors whose first dimension is the sample.

        Where a sample has several rows, the ``index`` of each row is among them (:func:`zoo.methods.distributed.index_of_rows`).
        """

    @abstractmethod
    def metrics(self) -> dict[str, Metric]:
        """Functions of all samples' concatenated outputs to one number, by name; NaN where a metric is undefined."""

    def predict_images(self, images: Sequence[torch.Tensor]) -> list[Prediction]:
        """Predictions for images (1 or 3, height, width) in [0, 1] of any sizes, on the method's device."""
        raise UnsupportedError(f"{type(self).__name__} has no prediction for a single image")

    def predict_image(self, image: torch.Tensor, **options: Any) -> Prediction:
        """The prediction for one image (1 or 3, height, width) in [0, 1].

        Raises:
            ImageError: the tensor is no such image.
        """
        check_image(image)
        training = self.training
        self.eval()
        with torch.no_grad(), self.autocast():
            (prediction,) = self.predict_images([image.to(self.device)], **options)
        self.train(training)
        return prediction

    def use_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Take what evaluation needs of a dataset: its finding ``vocabulary``, and the ``labeler`` of texts, None without one."""
        self.vocabulary: FindingVocabulary = metadata.get("vocabulary", FindingVocabulary(()))
        self.labeler: ReportLabeler | None = metadata.get("labeler")

    def example_batch(self) -> dict[str, Any]:
        """A batch of one synthetic sample, for planning."""
        raise UnsupportedError(f"{type(self).__name__} cannot be planned yet")

    def complete_outputs(self, outputs: Outputs) -> Outputs:
        """Add outputs that are computed from all samples together; none by default."""
        return outputs

    # Precision.

    def autocast(self) -> AbstractContextManager[None]:
        """Autocast to the base's precision if it has two bytes, else to the trainer's."""
        dtype = base_dtype(self.parameters())
        if dtype not in HALF and self._trainer is not None:
            dtype = dtype_of(self._trainer.precision) or dtype
        return autocast_to(dtype, self.device)

    def set_base_precision(self, precision: BasePrecision | str | None) -> None:
        """Cast the frozen base to a precision ("bf16"; Lightning's "bf16-true" too); None leaves it as stored.

        Trained weights become float32 in any case.
        """
        if precision is not None:
            self.to(dtype=dtype_of(precision) or torch.float32)
        for parameter in self.parameters():
            if parameter.requires_grad and parameter.dtype in HALF:
                parameter.data = parameter.data.float()

    def to(self, *args: Any, **kwargs: Any) -> "ZooModule":
        """Move to a device; a floating-point dtype applies to the base alone, trained weights stay float32.

        The base's fingerprint, that of its stored weights, is computed before the first cast.
        """
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        if dtype is not None:
            self.base_fingerprint()
            cast_base(self, dtype)
        if device is not None:
            super().to(device, non_blocking=non_blocking)
        return self

    def half(self) -> "ZooModule":
        """Cast the base to float16."""
        return self.to(dtype=torch.float16)

    def bfloat16(self) -> "ZooModule":
        """Cast the base to bfloat16."""
        return self.to(dtype=torch.bfloat16)

    def base_fingerprint(self) -> str | None:
        """Hash of the frozen base's stored weights, whatever they were cast to; None for a method without a frozen base."""
        if self._fingerprint is None and self.frozen:
            self._fingerprint = self.fingerprint_base()
        return self._fingerprint

    def fingerprint_base(self) -> str:
        """Hash the frozen base's weights as they are now."""
        return str(getattr(self, self.frozen[0]).fingerprint())

    # Lightning's hooks.

    def setup(self, stage: str) -> None:
        """Cast the base to ``base_precision``, or a two-byte one to the trainer's; switch to training mode, which Lightning does not."""
        if stage == "fit":
            self.train()
        if isinstance(data := getattr(self.trainer, "datamodule", None), ZooData):
            self.use_metadata(data.metadata())
            data.use_image_transform(self.image_transform)
        self.set_base_precision(self.base_precision)
        computed, stored = dtype_of(str(self.trainer.precision)), base_dtype(self.parameters())
        if computed is not None and stored in HALF and stored != computed:
            self.to(dtype=computed)

    def sharded_modules(self) -> list[nn.Module]:
        """Modules whose transformer blocks FSDP2 shards: each process calls every block in every step. The base by default."""
        return [getattr(self, name) for name in self.frozen]

    def configure_model(self) -> None:
        """Shard the weights where the trainer's strategy has a mesh of devices (FSDP2)."""
        if self.device_mesh is not None:
            shard(self, self.sharded_modules(), self.device_mesh["data_parallel"])

    def transfer_batch_to_device(
        self, batch: dict[str, Any], device: torch.device, dataloader_idx: int
    ) -> dict[str, Any]:
        """Move tensors, also in lists; everything else is unchanged. Images are float32 whatever the trainer cast them to."""

        def moved(value: Any) -> Any:
            if torch.is_tensor(value):
                return value.to(device, torch.float32 if value.dtype in HALF else None)
            return [moved(item) for item in value] if isinstance(value, list) else value

        return {key: moved(value) for key, value in batch.items()}

    def configure_optimizers(self) -> Any:
        """Build the recipe's optimizer over the trainable parameters, and its schedule by step."""
        if not (params := [parameter for parameter in self.parameters() if parameter.requires_grad]):
            return None
        if self.optimizer_recipe is None:
            raise MissingOptimizerError("no optimizer: set `optimizer_recipe`, as {'name': 'adamw', 'lr': 1e-3}")
        optimizer = build("optimizer", self.optimizer_recipe, params=params)
        if self.scheduler_recipe is None:
            return optimizer
        total = int(self.trainer.estimated_stepping_batches)
        self.trainer.fit_loop.setup_data()  # done by now, unless steps alone limit the training
        batches = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches  # infinite where unknown
        lengths = {"total_steps": total, "epoch_steps": max(math.ceil(batches), 1) if math.isfinite(batches) else 1}
        scheduler = build("scheduler", self.scheduler_recipe, optimizer=optimizer, **lengths)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Stop at once where nothing trains: :meth:`on_fit_start` of a subclass has processed the data."""
        if not any(parameter.requires_grad for parameter in self.parameters()):
            self.trainer.should_stop = True

    def on_train_start(self) -> None:
        """Restore the random state of the checkpoint."""
        if self._random_states is not None:
            restore_random_state(self._random_states)
            self._random_states = None

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        """Log the losses of a batch.

        Raises:
            NonFiniteError: the loss of a process is not a finite number; every process stops, before the weights change.
        """
        loss = self._logged_losses(batch, "train")
        if any_process(~loss.isfinite()):
            raise NonFiniteError(
                f"the loss of step {self.global_step + 1} is {float(loss.detach())}: training diverged; lower optimizer.lr, or look at the "
                "data of this step"
            )
        return loss + self._all_parameters()

    def _all_parameters(self) -> torch.Tensor:
        """Zero, with a gradient of zero for every trained parameter: processes wait for one another's.

        A single process gets them in :meth:`on_after_backward`. Weights that FSDP2 or ZeRO-3 has resharded were used, and have one.
        """
        if self._trainer is not None and self._trainer.world_size == 1:
            return torch.zeros((), device=self.device)
        trained = (p for p in self.parameters() if p.requires_grad and not is_sharded(p))
        return sum((p.sum() * 0.0 for p in trained), torch.zeros((), device=self.device))

    def on_after_backward(self) -> None:
        """Give trained parameters that a batch has not used a gradient of zero, so that one process trains as several do."""
        unused = (p for p in self.parameters() if p.requires_grad and p.grad is None)
        for parameter in unused if self.trainer.world_size == 1 else ():
            parameter.grad = torch.zeros_like(parameter)

    def _logged_losses(self, batch: dict[str, Any], name: str) -> torch.Tensor:
        with self.autocast():
            losses = self.losses(batch)
        samples = len(next(iter(batch.values())))
        logged = {f"{name}_{part}": value for part, value in losses.items()}
        self.log_dict(logged, prog_bar=name == "train", batch_size=samples, sync_dist=True)
        return losses["loss"]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Collect outputs; the epoch's metrics are logged at its end."""
        self._collect(batch)

    def on_validation_epoch_end(self) -> None:
        """Log every metric over the validation split."""
        self._log_metrics("val", prog_bar=True)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Collect outputs; the metrics are logged at the end."""
        self._collect(batch)

    def on_test_epoch_end(self) -> None:
        """Log every metric, and keep the outputs of all processes in ``test_outputs``."""
        self.test_outputs = self._log_metrics("test")

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Records[Prediction]:
        """A prediction for each image of a batch, which may be empty; Lightning leaves :class:`Records` as they are."""
        images = self.images_of(batch)
        if not len(images):
            return Records([])
        with self.autocast():
            return Records(self.predict_images(images, **self.prediction_options(batch)))

    def images_of(self, batch: dict[str, Any]) -> Sequence[torch.Tensor]:
        """The images of a batch that are predicted on."""
        images: Sequence[torch.Tensor] = batch["image"]
        return images

    def prediction_options(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of :meth:`predict_images` from a batch; none by default."""
        return {}

    def _collect(self, batch: dict[str, Any]) -> None:
        with self.autocast():
            outputs = self.evaluation_step(batch)
        if INDEX in batch:
            outputs.setdefault(INDEX, torch.as_tensor(batch[INDEX]))
        self._collected.append({name: value.detach().cpu() for name, value in outputs.items()})

    def _log_metrics(self, name: str, prog_bar: bool = False) -> Outputs:
        outputs = self.complete_outputs(gather_outputs(self._collected))
        self._collected.clear()
        for metric, function in self.metrics().items():
            self.log(f"{name}_{metric}", function(outputs), prog_bar=prog_bar, sync_dist=True)
        return outputs

    # Weights.

    @property  # type: ignore[misc]
    def strict_loading(self) -> bool:
        """False: a checkpoint leaves the frozen base out."""
        return False

    def _is_trained(self) -> Callable[[str], bool]:
        trainable = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        parameters = {name for name, _ in self.named_parameters(remove_duplicate=False)}

        def trained(name: str) -> bool:
            if name in parameters:  # a shared parameter counts under its first name
                return name in trainable
            return name.split(".")[0] not in self.frozen

        return trained

    def name_of_base_weight(self, name: str) -> str:
        """The name in this method of a weight in the card that training starts from."""
        for prefix, replacement in self.base_prefixes.items():
            if name.startswith(prefix):
                return replacement + name.removeprefix(prefix)
        return name

    def trained_state(self, state: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """The state dict of what training changes: trainable parameters, and buffers outside the frozen base."""
        trained = self._is_trained()
        state = self.state_dict() if state is None else state
        return {name: value for name, value in state.items() if trained(name)}

    def load_trained_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load the result of :meth:`trained_state`.

        Raises:
            WeightsError: a weight is missing or unexpected, or its shape differs.
        """
        expected = self.trained_state()
        problems = [f"'{name}' is missing" for name in expected.keys() - state.keys()]
        problems += [f"'{name}' is not a weight of {type(self).__name__}" for name in state.keys() - expected.keys()]
        problems += [
            f"'{name}' is {tuple(value.shape)}, expected {tuple(expected[name].shape)}"
            for name, value in state.items()
            if name in expected and expected[name].shape != value.shape
        ]
        if problems:
            raise WeightsError("the weights do not fit the method: " + "; ".join(sorted(problems)[:8]))
        self.load_state_dict(dict(state), strict=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen base out, and save every process's random state, so that a resumed run repeats the same sampling.

        Raises:
            NonFiniteError: a trained weight is not finite; the last good checkpoint stays.
        """
        if names := nonfinite_names((name, p) for name, p in self.named_parameters() if p.requires_grad):
            raise NonFiniteError(
                f"after step {self.global_step}, weights are not finite numbers: {', '.join(names[:3])}"
            )
        checkpoint["state_dict"] = self.trained_state(checkpoint["state_dict"])
        checkpoint["random_states"] = random_states()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the random states; they are set when training starts."""
        self._random_states = checkpoint.get("random_states")
        self._restored = True


class LossModule(ZooModule):
    """A method whose validation logs its losses alone; metrics that need generation are computed by ``zoo eval``."""

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log the losses of a batch."""
        self._logged_losses(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Nothing to add: Lightning has averaged the losses."""
