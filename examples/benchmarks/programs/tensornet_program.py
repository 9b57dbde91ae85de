"""The program TorchMD-Net: TensorNet, its ASE calculator and its Lightning modules."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.mixing import SumCalculator
from ase.io import read
from lightning.pytorch.callbacks import ModelCheckpoint
from systems import R_MAX
from torchmdnet.calculators import TMDNETCalculator
from torchmdnet.data import DataModule
from torchmdnet.module import LNNP
from torchmdnet.scripts.train import get_argparse

from programs import Budget
from programs.lightning_steps import Steps
from programs.shift import ConstantEnergy

_FILE = "tensornet.ckpt"
_SHIFT = "energy_per_atom.txt"
_MAX_NEIGHBORS = 100


class TensorNetProgram:
    """TensorNet of two layers, with the training settings published with it for rMD17.

    Parameters
    ----------
    n_features
        Channels.

    Notes
    -----
    Its ASE calculator gives no stress. Energies are float32 throughout, so the mean energy per atom
    is taken from the data before and added to the results after.

    References
    ----------
    Simeon and De Fabritiis, TensorNet, NeurIPS 2023, arXiv 2306.06482.
    """

    packages = ("torchmd-net", "torch", "lightning", "numpy", "ase")

    def __init__(self, n_features: int = 128) -> None:
        self.n_features = n_features

    def prepare(self, atoms: Atoms, folder: Path) -> int:
        """Save fresh weights."""
        settings = self._settings(folder, 1)
        module = LNNP(settings)
        torch.save(
            {"hyper_parameters": settings, "state_dict": module.state_dict()}, folder / _FILE
        )
        return sum(parameter.numel() for parameter in module.parameters())

    def open(self, folder: Path) -> Calculator:
        """Open the checkpoint."""
        calculator = TMDNETCalculator(str(folder / _FILE), max_num_neighbors=_MAX_NEIGHBORS)
        shift = folder / _SHIFT
        if not shift.exists():
            return calculator
        return SumCalculator([calculator, ConstantEnergy(float(shift.read_text()))])

    def train(
        self, frames: Path, folder: Path, budget: Budget, on_step: Callable[[], None]
    ) -> None:
        """Train as ``torchmd-train`` does, which has no limit of time and no hook."""
        _write_arrays(read(frames, ":"), folder)
        pl.seed_everything(0)
        settings = self._settings(folder, budget.n_epochs)
        best = ModelCheckpoint(folder, "best", monitor="val_total_mse_loss")
        trainer = pl.Trainer(
            max_epochs=budget.n_epochs,
            max_time={"seconds": budget.seconds},
            accelerator="cpu",
            devices=1,
            callbacks=[best, Steps(on_step)],
            logger=False,
            default_root_dir=folder,
            inference_mode=False,
            enable_progress_bar=False,
        )
        trainer.fit(LNNP(settings), DataModule(settings))
        Path(best.best_model_path).replace(folder / _FILE)

    def _settings(self, folder: Path, n_epochs: int) -> Any:
        settings = vars(get_argparse().parse_args([]))
        return settings | {
            "model": "tensornet",
            "embedding_dimension": self.n_features,
            "num_layers": 2,
            "num_rbf": 32,
            "cutoff_upper": R_MAX,
            "max_num_neighbors": _MAX_NEIGHBORS,
            "derivative": True,
            "num_epochs": n_epochs,
            "batch_size": 5,
            "inference_batch_size": 10,
            "lr": 1e-3,
            "lr_patience": 15,
            "lr_factor": 0.8,
            "lr_warmup_steps": 500,
            "y_weight": 0.05,
            "neg_dy_weight": 0.95,
            "num_workers": 0,
            "log_dir": str(folder),
            "val_size": 0.1,
            "test_size": 0,
            "dataset": "Custom",
            "coord_files": str(folder / "positions.npy"),
            "embed_files": str(folder / "numbers.npy"),
            "energy_files": str(folder / "energies.npy"),
            "force_files": str(folder / "forces.npy"),
        }


def _write_arrays(frames: list[Atoms], folder: Path) -> None:
    """Write the frames, all of one composition, as the program's data set wants them."""
    energies = np.array([atoms.get_potential_energy() for atoms in frames])
    mean = energies.mean() / len(frames[0])
    (folder / _SHIFT).write_text(repr(float(mean)))
    arrays = {
        "positions": [atoms.positions for atoms in frames],
        "forces": [atoms.get_forces() for atoms in frames],
        "energies": (energies - mean * len(frames[0]))[:, None],
    }
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", np.asarray(values, dtype=np.float32))
    np.save(folder / "numbers.npy", frames[0].numbers)


PROGRAM = TensorNetProgram
