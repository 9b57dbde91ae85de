"""Small training runs for tests: frames of a known potential, recipes, and runs in processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.io import write

from eqpot.training.progress import RunLog
from eqpot.training.recipe import Recipe
from eqpot.training.recipe_file import recipe_text
from eqpot.training.run import run

TRAIN = [sys.executable, "-c", "from eqpot.cli.train import main; main()"]


def write_frames(path, n_frames=16, seed=0):
    """Write Lennard-Jones clusters of two elements, and crystals with stress."""
    rng = np.random.default_rng(seed)
    images = []
    for index in range(n_frames):
        atoms = Atoms(
            "C2O2H",
            rng.normal(scale=0.06, size=(5, 3))
            + 1.4 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]),
        )
        if index % 2:
            atoms.set_cell(np.diag([4.0, 4.2, 4.4]) + 0.1 * rng.normal(size=(3, 3)))
            atoms.pbc = True
        atoms.calc = LennardJones(sigma=1.25, epsilon=0.3, rc=3.5, smooth=True)
        atoms.get_forces()
        if atoms.pbc.any():
            atoms.get_stress()
        images.append(atoms)
    write(path, images)
    return path


def recipe_of(frames, output, data=None, **training):
    """Return the recipe of a tiny model that trains in seconds."""
    # trained and tested on the same frames, which the audit would not let pass
    own = {"train": [str(frames)], "validation": 0.2, "test": [str(frames)], "audit": False}
    data = own | (data or {})
    return Recipe.model_validate(
        {
            "output": str(output),
            "data": data,
            "model": {"preset": "small", "n_features": 8, "r_max": 3.5, "l_max": 2},
            "training": {"epochs": 3, "batch_size": 4} | training,
        }
    )


class InterruptingLog(RunLog):
    """Sends a signal to its own process after a step."""

    def __init__(self, step, number):
        super().__init__()
        self.last, self.number = step, number

    def step(self, done, n_steps, loss):
        super().step(done, n_steps, loss)
        if done == self.last:
            os.kill(os.getpid(), self.number)


def quiet_run(recipe, log=None):
    with log or RunLog() as log:
        return run(recipe, log)


def start(recipe, folder: Path, *command, **options):
    """Start the training of a recipe as a process of its own, with one thread."""
    folder.mkdir(exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(recipe_text(recipe, documented=False))
    return subprocess.Popen(
        [*(command or TRAIN), str(path)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
