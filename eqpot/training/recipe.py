"""The recipe: every choice of a training run, typed, with defaults."""

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from eqpot.models import settings_of
from eqpot.training.averages import AverageSettings
from eqpot.training.fine_tuning_section import FineTuningSection
from eqpot.training.loss import LossSettings
from eqpot.training.memory import parse_size
from eqpot.training.metric import MetricName
from eqpot.training.optimizers import OptimizerSettings
from eqpot.training.patience import EarlyStoppingSettings
from eqpot.training.precision import PrecisionName
from eqpot.training.schedule import ScheduleSettings
from eqpot.training.section import Section
from eqpot.training.stages import StageSettings, check_order

LoggerName = Literal["csv", "tensorboard", "wandb", "mlflow"]

_SECONDS: Final = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "min": 60.0, "m": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip


def parse_duration(text: str | float) -> float:
    """Return a duration in seconds from ``"10 min"``, ``"2 h"``, ``"90 s"`` or a number of seconds.

    Raises
    ------
    ValueError
        If the text is no duration, or not above zero.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        seconds = float(text)
    else:
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]+)\s*", str(text))
        if match is None or match[2].lower() not in _SECONDS:
            raise ValueError(f'must be a duration such as "10 min", "2 h" or "90 s", got {text!r}')
        seconds = float(match[1]) * _SECONDS[match[2].lower()]
    if not 0 < seconds < float("inf"):
        raise ValueError(f"must be a duration above zero, got {text!r}")
    return seconds


class DataSection(Section):
    """What to learn from."""

    train: Annotated[list[str], Field(min_length=1)]
    """Training frames: extended XYZ, VASP, DeePMD folders, npz, what ASE reads, or eqpot stores."""
    validation: float | str = 0.1
    """Fraction of the training frames that validates, or a file."""
    split: Literal["random", "group", "stratified"] = "random"
    """How a fraction is drawn: frame by frame; by whole groups (those of the frames, or blocks of a
    trajectory), so that neighbours in time stay together; or the same part of each kind."""
    config_weights: dict[str, float] = Field(default={})
    """Factor on the weight of training frames by their ``config_type``."""
    test: list[str] = Field(default=[])
    """Files of test frames; errors of each are reported at the end."""
    audit: bool = True
    """Look for wrong units, signs, labels, duplicates and overlap first; an error ends the run."""
    accept: list[str] = Field(default=[])
    """Causes of errors of the audit that do not end the run, such as "overlap"."""
    energy_key: str | None = None
    """Name of the energy in the files; without it the usual names are tried."""
    forces_key: str | None = None
    """Name of the forces."""
    stress_key: str | None = None
    """Name of the stress."""
    virial_key: str | None = None
    """Name of a virial, from which the stress is made."""
    group_key: str | None = None
    """Name of what a frame belongs to, for splits by group."""
    atomic_numbers_key: str | None = None
    """Name of the atomic numbers in an npz."""
    positions_key: str | None = None
    """Name of the positions in an npz."""
    cell_key: str | None = None
    """Name of the cells in an npz."""
    units: dict[Literal["energy", "length", "stress", "virial", "forces"], str] | None = None
    """Units of the files where they are not eV and Å."""
    reference_energies: dict[str, float] | None = None
    """E0 of elements by symbol, eV; others come from isolated atoms or least squares."""

    @field_validator("train", "test", "accept", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("validation")
    @classmethod
    def _fraction(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError(f"a fraction must lie between 0 and 1, got {value}")
        if isinstance(value, str) and value.rstrip().endswith("%"):
            raise ValueError(f"write a fraction as a number such as 0.1, got {value!r}")
        return value


class ModelSection(Section):
    """The network; a number that is not given comes from the preset."""

    kind: Literal["gaunt"] = "gaunt"
    """Model family."""
    preset: Literal["small", "medium", "large"] = "medium"
    """Size: 32, 64 or 128 channels; ``l_max`` is 2 for ``small``, else 3."""
    r_max: Annotated[float, Field(gt=0, le=30)] = 5.0
    """Radius within which an atom sees its neighbours, Å."""
    n_features: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Channels."""
    l_max: Annotated[int, Field(ge=0, le=8)] | None = None
    """Highest degree of the densities and of their products."""
    l_hidden: Annotated[int, Field(ge=0, le=8)] | None = None
    """Highest degree of the features between layers."""
    l_along: Annotated[int, Field(ge=0, le=8)] | None = None
    """Highest degree of the neighbours' features that act along the edge, at most ``l_hidden``; 0
    in every preset. With 2 for both, errors of one flexible molecule of 27 atoms were lower."""
    n_senders: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Channels that an atom sends to its neighbours; half of the channels in every preset."""
    n_layers: Annotated[int, Field(ge=1, le=8)] | None = None
    """Message-passing layers."""
    n_radial: Annotated[int, Field(ge=1, le=256)] | None = None
    """Radial functions."""
    correlation: Annotated[int, Field(ge=1, le=6)] | None = None
    """Densities in the highest product; the body order less one."""
    n_element_channels: Annotated[int, Field(ge=1, le=256)] | None = None
    """Numbers in which an atom tells its element; without it one for each, at most 16."""
    envelope_power: Annotated[int, Field(ge=2, le=12)] | None = None
    """Exponent of the envelope, 6 in every preset: the lower, the less weight distant neighbours
    have at first. 3 helped with a few hundred frames of a molecule."""
    final_gate: bool | None = None
    """Whether the last layer ends with a gate, as in every preset. Without, a linear readout is
    added to the hidden layer. That lowered the force RMSE of one molecule at twice the temperature
    of its frames by a twentieth."""
    repulsion: bool = False
    """Add nuclear (ZBL) repulsion at close contact."""

    @model_validator(mode="after")
    def _possible(self) -> "ModelSection":
        settings = settings_of(self.kind, self.preset, self.changes())
        if settings.l_along > 0 and settings.n_layers == 1:
            raise ValueError(
                "`l_along` acts in layers after the first; with `n_layers` 1 it must be 0, got "
                f"{settings.l_along}"
            )
        return self

    def changes(self) -> dict[str, int | bool]:
        """Return the hyper-parameters that differ from the preset."""
        names = (
            "n_features", "l_max", "l_hidden", "l_along", "n_senders", "n_layers", "n_radial",
            "correlation", "n_element_channels", "envelope_power", "final_gate",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class TrainingSection(Section):
    """How to learn. Give ``max_time`` or ``epochs``."""

    max_time: str | float | None = None
    """Time for training, such as "10 min" (a number: seconds); 1 h without it and epochs."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Passes over the training frames."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of weights, split and order of frames."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Frames in a step, over all devices; without it, as many as hold about 80 atoms."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.002
    """Highest learning rate. The default suits muon."""
    energy_weight: Annotated[float, Field(gt=0)] = 0.01
    """Weight of energies, relative to forces, in the first part of the run."""
    final_energy_weight: Annotated[float, Field(gt=0)] = 10.0
    """Weight of energies at the end."""
    energy_ramp: Annotated[float, Field(ge=0, le=0.9)] = 0.7
    """Fraction of the run after which the weight of energies rises."""
    forces_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of forces."""
    stress_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of stresses, as virials per atom."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the moving average of the weights."""
    max_gradient_norm: Annotated[float, Field(gt=0)] = 0.1
    """Gradients of the loss are clipped to this norm."""
    checkpoint_interval: str | float = "10 min"
    """Time between checkpoints; what a kill at any moment costs at most."""
    spike_factor: Annotated[float, Field(gt=1)] = 100.0
    """Error of the forces, relative to the steps before, that counts as divergence."""
    max_rollbacks: Annotated[int, Field(ge=0)] = 5
    """How often a run that diverges goes back, with a quarter of the learning rate, and goes on."""
    edge_budget: Annotated[int, Field(ge=1)] | None = None
    """Neighbours that are computed at once; a step with more is split, with the same gradient.
    Without it, as many as memory holds."""
    memory_limit: str | None = None
    """Memory that the process may hold on a CPU, such as "8 GB"; steps are split to stay below."""
    num_workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that load frames while others are computed; 0 loads them in between."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the network; energies and positions are float64 always."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Kind of device; auto takes CUDA where there is one."""
    devices: Annotated[int, Field(ge=1)] = 1
    """Devices on each node."""
    num_nodes: Annotated[int, Field(ge=1)] = 1
    """Nodes, started by torchrun or SLURM."""
    loss: LossSettings = LossSettings()
    """How an error counts."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """How gradients become steps."""
    schedule: ScheduleSettings = ScheduleSettings()
    """How the learning rate changes over the run."""
    stages: list[StageSettings] = Field(default=[])
    """Parts of the run, each with another learning rate or other weights of the loss."""
    average: AverageSettings = AverageSettings()
    """Which weights are validated, and deployed at the end."""
    metric: MetricName = "loss"
    """What judges a validation, for the best weights, plateau and early stopping: the error of
    one label, or of all, weighted as at the end of the run."""
    early_stopping: EarlyStoppingSettings = EarlyStoppingSettings()
    """When the run ends before its last step."""
    precision: PrecisionName = "full"
    """Precision of matrix products while training: bf16 for those that mix channels, or tf32 for
    all (on CUDA). Both cost accuracy of energies, and are for first trials."""
    compiled: bool = False
    """Compute the steps with code compiled for the processor, in three quarters of the time on one
    thread. Compiling takes two to four minutes, less when repeated, and needs a C++ compiler. CPU
    only."""
    loggers: list[LoggerName] = Field(default=[])
    """Where metrics are logged besides train.log and metrics.json. Nothing is sent over the network
    unless WANDB_MODE or MLFLOW_TRACKING_URI in the environment say so."""

    @field_validator("memory_limit")
    @classmethod
    def _size(cls, value: str | None) -> str | None:
        if value is not None:
            parse_size(value)
        return value

    @field_validator("max_time", "checkpoint_interval")
    @classmethod
    def _duration(cls, value: str | float | None) -> str | float | None:
        if value is not None:
            parse_duration(value)
        return value

    @model_validator(mode="after")
    def _one_length(self) -> "TrainingSection":
        if self.max_time is not None and self.epochs is not None:
            raise ValueError("give `max_time` or `epochs`, not both")
        return self

    @field_validator("stages")
    @classmethod
    def _one_after_the_other(cls, value: list[StageSettings]) -> list[StageSettings]:
        check_order(value)
        return value

    @model_validator(mode="after")
    def _schedule_of_optimizer(self) -> "TrainingSection":
        if self.optimizer.kind == "schedule_free" and self.schedule.kind != "constant":
            raise ValueError(
                "the schedule_free `optimizer` averages in place of a schedule: it needs "
                f"`schedule: {{kind: constant}}`, got {self.schedule.kind}"
            )
        return self

    @model_validator(mode="after")
    def _precision_of_dtype(self) -> "TrainingSection":
        if self.precision != "full" and self.dtype != "float32":
            raise ValueError(
                f"`precision: {self.precision}` needs `dtype: float32`, got {self.dtype}"
            )
        if self.precision != "full" and self.compiled:
            raise ValueError(f"`compiled: true` needs `precision: full`, got {self.precision}")
        return self


class Recipe(Section):
    """A training run."""

    output: Annotated[str, Field(min_length=1)]
    """Folder for everything that the run leaves; a run that was stopped there goes on."""
    data: DataSection
    model: ModelSection = ModelSection()
    fine_tuning: FineTuningSection = FineTuningSection()
    training: TrainingSection = TrainingSection()

    def identity(self) -> dict[str, Any]:
        """Return what makes a run this one: all but its folder and the means it is computed with.

        A run may be moved, and go on with other means.
        """
        values = self.model_dump(mode="json", exclude={"output"})
        for section in ("data", "training"):
            values[section] = {k: v for k, v in values[section].items() if k not in _MEANS}
        return values


DEFAULT_MAX_TIME: Final = "1 h"
"""Length of a run whose recipe gives neither ``max_time`` nor ``epochs``."""


_MEANS: Final = (
    "accelerator", "accept", "audit", "checkpoint_interval", "compiled", "devices", "edge_budget",
    "loggers", "memory_limit", "num_nodes", "num_workers",
)  # fmt: skip


def default_recipe(frames: str | Path) -> Recipe:
    """Return the recipe of a file of frames alone: all defaults, output in ``runs/``."""
    path = Path(frames)
    name = path.name.split(".")[0]
    return Recipe(output=str(Path("runs") / name), data=DataSection(train=[str(path)]))
