"""The program mace-torch: ScaleShiftMACE, its ASE calculator and ``mace_run_train``."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from mace import modules
from mace.calculators import MACECalculator
from mace.cli.run_train import run
from mace.tools import build_default_arg_parser
from systems import R_MAX, mean_neighbors

from programs import Budget

_FILE = "mace.model"


class MACEProgram:
    """Two layers, l 3, correlation 3, radius 5 Å: the model of the MACE paper.

    Parameters
    ----------
    irreps
        Of the hidden features.

    References
    ----------
    Batatia et al., MACE, NeurIPS 2022, arXiv 2206.07697. What is not set has the default of the
    training command; the second stage starts at four fifths, as in the documentation's example.
    """

    packages = ("mace-torch", "e3nn", "torch", "numpy", "ase", "matscipy")

    def __init__(self, irreps: str) -> None:
        self.irreps = irreps

    def prepare(self, atoms: Atoms, folder: Path) -> int:
        """Save fresh weights."""
        from e3nn import o3

        numbers = sorted(set(atoms.numbers.tolist()))
        block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
        torch.set_default_dtype(torch.float32)
        model = modules.ScaleShiftMACE(
            r_max=R_MAX,
            num_bessel=8,
            num_polynomial_cutoff=5,
            max_ell=3,
            interaction_cls=block,
            interaction_cls_first=block,
            num_interactions=2,
            num_elements=len(numbers),
            hidden_irreps=o3.Irreps(self.irreps),
            MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.zeros(len(numbers)),
            avg_num_neighbors=mean_neighbors(atoms),
            atomic_numbers=numbers,
            correlation=3,
            gate=torch.nn.functional.silu,
            radial_MLP=[64, 64, 64],
            use_reduced_cg=False,
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.0,
        )
        torch.save(model, folder / _FILE)
        return sum(parameter.numel() for parameter in model.parameters())

    def open(self, folder: Path) -> Calculator:
        """Open the saved model."""
        return MACECalculator(
            model_paths=str(folder / _FILE), device="cpu", default_dtype="float32"
        )

    def train(
        self, frames: Path, folder: Path, budget: Budget, on_step: Callable[[], None]
    ) -> None:
        """Run the training command with the settings of its documentation for small molecules."""
        # a function hides the module of its name from an import statement
        trainer: Any = import_module("mace.tools.train")
        take_step = trainer.take_step

        def counted(*args: Any, **kwargs: Any) -> Any:
            result = take_step(*args, **kwargs)
            on_step()
            return result

        trainer.take_step = counted  # there is no other hook after a step
        settings = {
            "name": "mace",
            "train_file": frames,
            "valid_fraction": 0.1,
            "energy_key": "energy",
            "forces_key": "forces",
            "E0s": "average",
            "model": "MACE",
            "hidden_irreps": self.irreps,
            "r_max": R_MAX,
            "batch_size": 5,
            "valid_batch_size": 10,
            "max_num_epochs": budget.n_epochs,
            "start_swa": max(1, round(0.8 * budget.n_epochs)),
            "ema_decay": 0.99,
            "default_dtype": "float32",
            "device": "cpu",
            "seed": 0,
            "work_dir": folder,
        }
        words = [f"--{name}={value}" for name, value in settings.items()]
        run(build_default_arg_parser().parse_args([*words, "--ema", "--amsgrad", "--swa"]))
        found = [folder / f"mace{stage}.model" for stage in ("_stagetwo", "")]
        best = next(path for path in found if path.exists())
        best.rename(folder / _FILE)


PROGRAM = MACEProgram
