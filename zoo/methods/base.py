"""What every method shares: optimizer from the recipe, trained weights only in checkpoints, evaluation per sample."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning import LightningDataModule, LightningModule

from zoo.recipe import build

Outputs = dict[str, torch.Tensor]
Metric = Callable[[Outputs], float]


class ZooModule(LightningModule):
    """A method: components wired to losses, trainable by Lightning, measured sample by sample.

    Subclasses give ``training_step``, ``evaluation_step`` and ``metrics``. Attributes named in ``frozen`` hold public base
    models: their parameters are saved only where they require a gradient, their buffers never.
    """

    frozen: ClassVar[tuple[str, ...]] = ()
    base_prefixes: ClassVar[dict[str, str]] = {}
    """How parts of another method's card are called here: prefix there to prefix here."""
    task: ClassVar[str] = ""
    """What it does, as a Hugging Face task name."""
    picture_suffix: ClassVar[str] = ".png"
    """Of the files that :meth:`draw_prediction` writes."""
    answers_questions: ClassVar[bool] = False
    """Whether :meth:`predict_image` takes a ``question``, and the exchanges ``so_far``."""
    input_format: ClassVar[str] = ""
    output_format: ClassVar[str] = ""
    intended_use: ClassVar[str] = "Research and teaching on medical vision-language methods."

    def __init__(self) -> None:
        """Start without an optimizer; training sets the recipe's."""
        super().__init__()
        self.optimizer_recipe: dict[str, Any] | None = None
        self.scheduler_recipe: dict[str, Any] | None = None
        self._random_state: torch.Tensor | None = None

    @property  # type: ignore[misc]
    def strict_loading(self) -> bool:  # type: ignore[override]
        """False: a checkpoint leaves the frozen base out."""
        return False

    @abstractmethod
    def evaluation_step(self, batch: dict[str, Any]) -> Outputs:
        """What the metrics need of a batch: tensors whose first dimension is the sample."""

    @abstractmethod
    def metrics(self) -> dict[str, Metric]:
        """Name to function of all samples' outputs (concatenated) to one number."""

    def prepare_fit(self, data: LightningDataModule) -> None:
        """Look at the training data once before fitting; nothing by default."""

    def predict_image(self, image: torch.Tensor) -> dict[str, Any]:
        """What the method says of one image (channels, height, width) in [0, 1], as JSON can hold it."""
        raise NotImplementedError(f"{type(self).__name__} has no prediction for a single image")

    def draw_prediction(self, image: torch.Tensor, prediction: dict[str, Any], file: Path) -> None:
        """Draw a prediction over its image into a file with ``picture_suffix``."""
        raise NotImplementedError(f"{type(self).__name__} has no picture of a prediction")

    def example_batch(self) -> dict[str, Any]:
        """A batch of one made-up sample, for planning."""
        raise NotImplementedError(f"{type(self).__name__} cannot be planned yet")

    def configure_optimizers(self) -> Any:
        """Build the recipe's optimizer over the trainable parameters, and its schedule by step."""
        params = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not params:
            return None
        if self.optimizer_recipe is None:
            raise RuntimeError("no optimizer: set `optimizer_recipe`, for example {'name': 'adamw', 'lr': 1e-3}")
        optimizer = build("optimizer", self.optimizer_recipe, params=params)
        if self.scheduler_recipe is None:
            return optimizer
        total = int(self.trainer.estimated_stepping_batches)
        scheduler = build("scheduler", self.scheduler_recipe, optimizer=optimizer, total_steps=total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _is_trained(self) -> Callable[[str], bool]:
        frozen_parameters = {name for name, parameter in self.named_parameters() if not parameter.requires_grad}
        parameters = {name for name, _ in self.named_parameters()}

        def trained(name: str) -> bool:
            if name in parameters:
                return name not in frozen_parameters
            return name.split(".")[0] not in self.frozen

        return trained

    def base_fingerprint(self) -> str | None:
        """Hash of the frozen base's weights, None for a method that trains all of itself."""
        return getattr(self, self.frozen[0]).fingerprint() if self.frozen else None

    def name_of_base_weight(self, name: str) -> str:
        """The name here of a weight of the card that training starts from."""
        for there, here in self.base_prefixes.items():
            if name.startswith(there):
                return here + name.removeprefix(there)
        return name

    def complete_outputs(self, outputs: Outputs) -> Outputs:
        """Add to all samples' outputs what needs all of them together; nothing by default."""
        return outputs

    def trained_state(self, state: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """The weights that training changes: trainable parameters, and buffers outside the frozen base."""
        trained = self._is_trained()
        return {name: value for name, value in (state or self.state_dict()).items() if trained(name)}

    def load_trained_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load what :meth:`trained_state` gave.

        Raises:
            ValueError: a weight is missing, has no place, or has another shape.
        """
        own = self.trained_state()
        problems = [f"'{name}' is missing" for name in own.keys() - state.keys()]
        problems += [f"'{name}' has no place in {type(self).__name__}" for name in state.keys() - own.keys()]
        problems += [
            f"'{name}' is {tuple(value.shape)}, not {tuple(own[name].shape)}"
            for name, value in state.items()
            if name in own and own[name].shape != value.shape
        ]
        if problems:
            raise ValueError("the weights do not fit the method: " + "; ".join(sorted(problems)[:8]))
        self.load_state_dict(dict(state), strict=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen base out, and keep the random state so that a resumed run draws what it would have."""
        checkpoint["state_dict"] = self.trained_state(checkpoint["state_dict"])
        checkpoint["random_state"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the random state; it is set when training starts."""
        self._random_state = checkpoint.get("random_state")

    def on_train_start(self) -> None:
        """Go on with the random state of the checkpoint."""
        if self._random_state is not None:
            torch.set_rng_state(self._random_state.cpu())
            self._random_state = None

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Collect outputs; the epoch's metrics are logged at its end."""
        if batch_index == 0:
            self._validation: list[Outputs] = []
        self._validation.append({name: value.detach().cpu() for name, value in self.evaluation_step(batch).items()})

    def on_validation_epoch_end(self) -> None:
        """Log every metric over the validation split (of this process, under ddp)."""
        outputs = self.complete_outputs(join_outputs(self._validation))
        for name, metric in self.metrics().items():
            self.log(f"val_{name}", metric(outputs), prog_bar=True, sync_dist=True)
        self._validation.clear()


class LossModule(ZooModule):
    """A method whose validation logs its losses alone; what takes generation to measure is left to ``zoo eval``."""

    @abstractmethod
    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """``loss``, which is minimised, and its parts by name."""

    def training_step(self, batch: dict[str, Any], batch_index: int) -> torch.Tensor:
        """Log the losses of a batch."""
        return self._logged(batch, "train")

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Log the losses of a batch."""
        self._logged(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Nothing to add: Lightning has averaged the losses."""

    def _logged(self, batch: dict[str, Any], name: str) -> torch.Tensor:
        losses = self.losses(batch)
        samples = len(next(iter(batch.values())))
        logged = {f"{name}_{part}": value for part, value in losses.items()}
        self.log_dict(logged, prog_bar=name == "train", batch_size=samples, sync_dist=True)
        return losses["loss"]


def join_outputs(batches: list[Outputs]) -> Outputs:
    """Concatenate the outputs of batches along the samples."""
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
