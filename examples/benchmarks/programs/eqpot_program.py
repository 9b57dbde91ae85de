"""The program eqpot: the flagship model, its ASE calculator and its training run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator
from systems import R_MAX, mean_neighbors

from eqpot.calculators import ASECalculator
from eqpot.compilation import export_compiled
from eqpot.files import save_potential
from eqpot.models import build_model, settings_of
from eqpot.potential import Potential
from eqpot.training.progress import RunLog
from eqpot.training.recipe import Recipe
from eqpot.training.run import run
from programs import Budget

_FILE = "potential.eqpot"
_PACKAGE = "potential.pt2"


class EqpotProgram:
    """A preset.

    Parameters
    ----------
    preset
        Size of the model.
    calculator
        Arguments of the ASE calculator beside the file; a skin of 0 makes a new neighbour list at
        every call, as the others do. With ``compiled`` a package is compiled beforehand.
    training
        Values of the recipe's section ``training`` that differ from the defaults.
    """

    packages = ("eqpot", "torch", "numpy", "ase", "matscipy")

    def __init__(
        self,
        preset: str = "medium",
        calculator: dict[str, Any] | None = None,
        training: dict[str, Any] | None = None,
    ) -> None:
        self.preset = preset
        self.calculator = {"skin": 0.0, **(calculator or {})}
        self.compiled = self.calculator.pop("compiled", False)
        self.training = training or {}

    def prepare(self, atoms: Atoms, folder: Path) -> int:
        """Save fresh weights, and compile them if asked to."""
        numbers = sorted(set(atoms.numbers.tolist()))
        model = build_model(
            settings_of("gaunt", self.preset), len(numbers), R_MAX, mean_neighbors(atoms)
        )
        save_potential(folder / _FILE, Potential(model, numbers, [0.0] * len(numbers), 1.0, R_MAX))
        if self.compiled:
            export_compiled(folder / _FILE, folder / _PACKAGE)
        return sum(parameter.numel() for parameter in model.parameters())

    def open(self, folder: Path) -> Calculator:
        """Open the native file, or the package that was compiled of it."""
        if self.compiled:
            return ASECalculator.from_compiled(folder / _PACKAGE, trust=True, **self.calculator)
        return ASECalculator(folder / _FILE, dtype="float32", **self.calculator)

    def train(
        self, frames: Path, folder: Path, budget: Budget, on_step: Callable[[], None]
    ) -> None:
        """Run a recipe, as ``train-potential`` does but for its report."""
        recipe = {
            "output": str(folder),
            "data": {"train": [str(frames)], "validation": 0.1},
            "model": {"preset": self.preset, "r_max": R_MAX},
            "training": {
                "max_time": budget.seconds,
                "batch_size": 5,
                "accelerator": "cpu",
                **self.training,
            },
        }
        with _Log(on_step) as log:
            run(Recipe.model_validate(recipe), log)


class _Log(RunLog):
    def __init__(self, on_step: Callable[[], None]) -> None:
        super().__init__()
        self._on_step = on_step

    def step(self, done: int, n_steps: int, loss: float) -> None:
        super().step(done, n_steps, loss)
        self._on_step()


PROGRAM = EqpotProgram
