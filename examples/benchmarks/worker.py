"""One program under test: answers ``{"system", "n_calls"}`` lines with times, on its own.

    python worker.py eqpot|mace N_THREADS PRESET

Random weights; energy, forces and stress through the program's own ASE calculator in float32.
"""

import contextlib
import json
import resource
import sys
import time
import warnings
from importlib.metadata import version

import numpy as np
import torch
from ase.calculators.calculator import Calculator
from systems import ELEMENTS, NEIGHBORS, R_MAX, SYSTEMS


def eqpot_calculator(name: str, preset: str) -> Calculator:
    """Return a preset with random weights."""
    from eqpot.calculators import ASECalculator
    from eqpot.models import build_model, settings_of
    from eqpot.potential import Potential

    elements = ELEMENTS[name]
    settings = settings_of("gaunt", preset)
    model = build_model(settings, len(elements), R_MAX, NEIGHBORS[name])
    potential = Potential(model, elements, [0.0] * len(elements), 1e-3, R_MAX).float()
    # no skin: the neighbour list is made anew at every call, as in MACE
    return ASECalculator(potential, dtype="float32", skin=0.0)


def mace_calculator(name: str, _: str) -> Calculator:
    """Return MACE 128x0e+128x1o, l_max 3, correlation 3, two layers, with random weights."""
    from mace import modules  # isort: skip  (it prepares torch for what e3nn loads)
    from e3nn import o3
    from mace.calculators import MACECalculator

    elements = ELEMENTS[name]
    torch.set_default_dtype(torch.float32)
    model = modules.ScaleShiftMACE(
        r_max=R_MAX,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        num_interactions=2,
        num_elements=len(elements),
        hidden_irreps=o3.Irreps("128x0e + 128x1o"),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(elements)),
        avg_num_neighbors=NEIGHBORS[name],
        atomic_numbers=elements,
        correlation=3,
        gate=torch.nn.functional.silu,
        radial_MLP=[64, 64, 64],
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    return MACECalculator(models=[model], device="cpu", default_dtype="float32")


def serve(program: str, n_threads: int, preset: str) -> None:
    """Answer requests from standard input until it ends."""
    answers = sys.stdout
    torch.set_num_threads(n_threads)
    make = {"eqpot": eqpot_calculator, "mace": mace_calculator}[program]
    package = {"eqpot": "eqpot", "mace": "mace-torch"}[program]
    structures = {}
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        versions = {package: version(package), "torch": torch.__version__}
        print(json.dumps(versions), file=answers, flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            name = request["system"]
            if name not in structures:
                torch.manual_seed(0)
                atoms = SYSTEMS[name]()
                atoms.calc = make(name, preset)
                structures[name] = atoms, np.random.default_rng(1)
            atoms, rng = structures[name]
            wanted = ["energy", "forces"] + (["stress"] if atoms.pbc.all() else [])
            seconds = []
            for _ in range(request["n_calls"]):
                # every call sees new positions, so that nothing is remembered
                atoms.positions += rng.normal(scale=0.002, size=atoms.positions.shape)
                started = time.perf_counter()
                atoms.calc.calculate(atoms, wanted, ["positions"])
                seconds.append(time.perf_counter() - started)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            answer = {"seconds": seconds, "n_atoms": len(atoms), "peak_mib": peak}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3])
