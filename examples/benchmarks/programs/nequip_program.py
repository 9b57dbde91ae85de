"""The programs NequIP and Allegro: one framework, its ASE calculator and ``nequip-train``."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from ase.io import read, write
from nequip.integrations.ase import NequIPCalculator
from systems import R_MAX, SYSTEMS, mean_neighbors

from programs import Budget

_FILE = "compiled.nequip.pt2"
_N_WEIGHTS = "n_weights.txt"
_SPECIES = "species.json"

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "nequip": {
        "_target_": "nequip.model.NequIPGNNModel",
        "num_layers": 4,
        "num_features": 32,
        "parity": True,
    },
    "allegro": {
        "_target_": "allegro.model.AllegroModel",
        "radial_chemical_embed": {
            "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
            "num_bessels": 8,
        },
        "num_layers": 2,
        "num_scalar_features": 64,
        "num_tensor_features": 32,
        "parity": True,
    },
}
"""The models of the tutorials of both, with the sizes that their papers recommend."""


class NequIPProgram:
    """A model of the framework, compiled ahead of time by ``nequip-compile`` for inference.

    Parameters
    ----------
    architecture
        A key of :data:`ARCHITECTURES`.
    l_max
        Highest degree of the features.

    References
    ----------
    Batzner et al., Nat. Commun. 13, 2453 (2022); Musaelian et al., Nat. Commun. 14, 579 (2023).
    """

    packages = ("nequip", "nequip-allegro", "e3nn", "torch", "lightning", "numpy", "ase")

    def __init__(self, architecture: str, l_max: int) -> None:
        self.name = f"{architecture}-l{l_max}"
        self.model = {**ARCHITECTURES[architecture], "l_max": l_max}

    def prepare(self, atoms: Atoms, folder: Path) -> int:
        """Compile a model after one step: one for all systems, which is kept, as it takes long."""
        shared = folder.parent / f"{self.name}-compiled"
        if not (shared / _N_WEIGHTS).exists():  # what is written last
            shutil.rmtree(shared, ignore_errors=True)
            shared.mkdir()
            write(shared / "frames.xyz", _any_frames(), format="extxyz")
            self.train(shared / "frames.xyz", shared, Budget(3600.0, 1), lambda: None)
        for name in (_FILE, _SPECIES):
            shutil.copy(shared / name, folder / name)
        return int((shared / _N_WEIGHTS).read_text())

    def open(self, folder: Path) -> Calculator:
        """Open the compiled model."""
        species = json.loads((folder / _SPECIES).read_text())
        return NequIPCalculator.from_compiled_model(
            str(folder / _FILE),
            device="cpu",
            chemical_species_to_atom_type_map={symbol: symbol for symbol in species},
        )

    def train(
        self, frames: Path, folder: Path, budget: Budget, on_step: Callable[[], None]
    ) -> None:
        """Run ``nequip-train``, then ``nequip-compile``."""
        from nequip.scripts.train import main as train

        from programs.lightning_steps import NamedSteps

        NamedSteps.told = staticmethod(on_step)
        first = read(frames, "0")
        assert isinstance(first, Atoms)
        species = [chemical_symbols[z] for z in sorted(set(first.numbers.tolist()))]
        (folder / _SPECIES).write_text(json.dumps(species))
        config = self._config(frames, folder, species, budget, mean_neighbors(first))
        (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML too
        arguments = sys.argv
        sys.argv = ["nequip-train", "-cp", str(folder), "-cn", "config", f"hydra.run.dir={folder}"]
        try:
            train()
        finally:
            sys.argv = arguments
        self._compile(folder)

    def _compile(self, folder: Path) -> None:
        from nequip.scripts.compile import main as compile_model

        checkpoint = folder / "best.ckpt"
        words = ["--mode", "aotinductor", "--device", "cpu", "--target", "ase"]
        compile_model([str(checkpoint), str(folder / _FILE), *words])
        weights = torch.load(checkpoint, map_location="cpu", weights_only=False)["state_dict"]
        own = [value.numel() for name, value in weights.items() if name.startswith("model.")]
        (folder / _N_WEIGHTS).write_text(str(sum(own)))

    def _config(
        self, frames: Path, folder: Path, species: list[str], budget: Budget, n_neighbors: float
    ) -> dict[str, Any]:
        """Return the configuration of the framework's tutorial."""
        metrics = {
            "_target_": "nequip.train.EnergyForceMetrics",
            "coeffs": {"total_energy_mae": 1.0, "forces_mae": 1.0},
        }
        validated = "val0_epoch/weighted_sum"
        return {
            "run": ["train"],
            "data": {
                "_target_": "nequip.data.datamodule.ASEDataModule",
                "seed": 0,
                "split_dataset": {"file_path": str(frames), "train": 0.9, "val": 0.1},
                "transforms": [
                    # a molecule's cell of zeros would make its stress NaN, which no check passes
                    {
                        "_target_": "nequip.data.transforms.NonPeriodicCellTransform",
                        "override_cell": True,
                    },
                    {
                        "_target_": ("nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper"),
                        "model_type_names": species,
                        "chemical_species_to_atom_type_map": {s: s for s in species},
                    },
                    {"_target_": "nequip.data.transforms.NeighborListTransform", "r_max": R_MAX},
                ],
                "train_dataloader": {
                    "_target_": "torch.utils.data.DataLoader",
                    "batch_size": 5,
                    "num_workers": 0,
                    "shuffle": True,
                },
                "val_dataloader": {
                    "_target_": "torch.utils.data.DataLoader",
                    "batch_size": 10,
                    "num_workers": 0,
                },
                "stats_manager": {
                    "_target_": "nequip.data.CommonDataStatisticsManager",
                    "type_names": species,
                },
            },
            "trainer": {
                "_target_": "lightning.Trainer",
                "accelerator": "cpu",
                "devices": 1,
                "max_epochs": budget.n_epochs,
                "max_time": _lightning_time(budget.seconds),
                "enable_progress_bar": False,
                "logger": False,
                "default_root_dir": str(folder),
                "callbacks": [
                    {
                        "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
                        "dirpath": str(folder),
                        "filename": "best",
                        "monitor": validated,
                    },
                    {"_target_": "programs.lightning_steps.NamedSteps"},
                ],
            },
            "training_module": {
                "_target_": "nequip.train.EMALightningModule",
                "ema_decay": 0.999,
                "loss": {
                    "_target_": "nequip.train.EnergyForceLoss",
                    "per_atom_energy": True,
                    "coeffs": {"total_energy": 1.0, "forces": 1.0},
                },
                "val_metrics": metrics,
                "train_metrics": metrics,
                "test_metrics": metrics,
                "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.01},
                "lr_scheduler": {
                    "scheduler": {
                        "_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau",
                        "factor": 0.6,
                        "patience": 5,
                        "threshold": 0.2,
                        "min_lr": 1e-6,
                    },
                    "monitor": validated,
                    "interval": "epoch",
                    "frequency": 1,
                },
                "model": {
                    **self.model,
                    "seed": 0,
                    "model_dtype": "float32",
                    "type_names": species,
                    "r_max": R_MAX,
                    "avg_num_neighbors": n_neighbors,
                    "per_type_energy_shifts": "${training_data_stats:per_atom_energy_mean}",
                    "per_type_energy_scales": "${training_data_stats:forces_rms}",
                },
            },
        }


def _any_frames() -> list[Atoms]:
    """Return frames with all elements of the systems, and labels of no meaning."""
    rng = np.random.default_rng(0)
    elements = sorted({int(z) for make in SYSTEMS.values() for z in make().numbers})
    frames = []
    for _ in range(10):
        frame = SYSTEMS["molecule"]()
        frame.numbers[: len(elements)] = elements
        frame.rattle(0.01, rng=rng)
        forces = rng.standard_normal((len(frame), 3))
        frame.calc = SinglePointCalculator(frame, energy=0.0, forces=forces)
        frames.append(frame)
    return frames


def _lightning_time(seconds: float) -> str:
    """Return days, hours, minutes and seconds, which pass through the framework's reader."""
    minutes, rest = divmod(max(1, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days:02d}:{hours:02d}:{minutes:02d}:{rest:02d}"


PROGRAM = NequIPProgram
