"""The programs that are compared: a file each, imported in the environment of its own alone.

``open_program`` is the only way in; the rest of the benchmark knows :class:`Program`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ase import Atoms
from ase.calculators.calculator import Calculator


@dataclass(frozen=True)
class Budget:
    """How long a training lasts.

    Attributes
    ----------
    seconds
        For a trainer that knows a limit of time.
    n_epochs
        The epochs that fit, for one that does not.
    """

    seconds: float
    n_epochs: int


class Program(Protocol):
    """What a program does in the comparison."""

    packages: tuple[str, ...]
    """Distributions whose versions stand in the result."""

    def prepare(self, atoms: Atoms, folder: Path) -> int:
        """Write a model with fresh weights for the elements of ``atoms``; return their number."""

    def open(self, folder: Path) -> Calculator:
        """Return the program's own ASE calculator for the model in ``folder``, in float32."""

    def train(
        self, frames: Path, folder: Path, budget: Budget, on_step: Callable[[], None]
    ) -> None:
        """Train with the program's own trainer on one thread, and leave a model in ``folder``.

        Batches of five frames, energies and forces, float32; a tenth of the frames validates.
        ``on_step`` is called after each step of the optimizer.
        """


def open_program(name: str, options: dict[str, Any]) -> Program:
    """Return a program from the file of its name, with the options of its variant."""
    program: Program = import_module(f"programs.{name}_program").PROGRAM(**options)
    return program
