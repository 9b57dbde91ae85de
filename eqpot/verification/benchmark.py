"""What a potential reaches on this machine through the calculator of ASE, and what limits it."""

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from eqpot.calculators import ASECalculator
from eqpot.cost import Cost, CostCounter
from eqpot.data import Frame, frame_to_graph
from eqpot.data.neighbors import neighbor_list
from eqpot.models import GauntModel
from eqpot.models.chunks import ChunkedModel
from eqpot.models.deployment import deployed
from eqpot.peaks import bandwidth, multiply_add_rate, start_seconds
from eqpot.potential import Potential
from eqpot.verification.budget import STAGES, count_evaluation
from eqpot.verification.machine import describe_machine, peak_memory
from eqpot.verification.packing import packing

SIDES: Final = (3, 6, 10)
"""Atoms along the edge of the structures that are measured if none is given."""
KICK: Final = 0.01
"""Root mean square displacement of an atom from step to step, Å: a light atom in a femtosecond."""

_MEMORY: Final = 0.995  # of the displacement: atoms tremble by 0.1 Å around their places
_WARM_UP: Final = 5
_EDGES_COUNTED: Final = 200_000
_FEWEST: Final = 5


@dataclass(frozen=True)
class Measurement:
    """Time and cost of one structure.

    Attributes
    ----------
    source
        What the structure is.
    n_atoms, mean_neighbors
        Number of atoms, and of neighbours of an atom within the radius.
    n_steps
        Number of steps measured.
    seconds
        Of a step: the median.
    list_share, model_share
        Parts of the time of all steps: neighbour list; energies and derivatives.
    cost
        Of the model in a step.
    peak_memory_mib
        Largest memory so far: of the process, or of the tensors on a GPU.
    """

    source: str
    n_atoms: int
    mean_neighbors: float
    n_steps: int
    seconds: float
    list_share: float
    model_share: float
    cost: Cost
    peak_memory_mib: float | None

    @property
    def rest_share(self) -> float:
        """Part of the time that is neither list nor model: that of ASE."""
        return 1.0 - self.list_share - self.model_share

    @property
    def atoms_per_second(self) -> float:
        """Atoms times steps, per second."""
        return self.n_atoms / self.seconds

    def ns_per_day(self, timestep: float) -> float:
        """Return nanoseconds of dynamics in a day, with a timestep in fs."""
        return timestep * 1e-6 * 86400.0 / self.seconds


@dataclass(frozen=True)
class Benchmark:
    """All measurements, the machine and what it does at best.

    Attributes
    ----------
    machine
        As :func:`eqpot.verification.machine.describe_machine` tells.
    dtype
        Of the model.
    timestep
        fs.
    multiply_add_rate, bandwidth, start_seconds
        Multiply-adds and bytes in a second, and the seconds of an operation that has nothing to do;
        see :mod:`eqpot.peaks`.
    measurements
        One for each structure.
    compiled
        Whether the code was compiled: then nobody counts its bytes and its starts.
    """

    machine: dict[str, Any]
    dtype: str
    timestep: float
    multiply_add_rate: float
    bandwidth: float
    start_seconds: float
    measurements: list[Measurement]
    compiled: bool = False

    def floors(self, measurement: Measurement) -> dict[str, float]:
        """Return the parts of the model's time that its work takes at best, by kind of work.

        Multiply-adds take no less than this. Traffic may, from a cache; starting operations takes
        more in Python. Of compiled code it is the multiply-adds alone.
        """
        cost, seconds = measurement.cost, measurement.seconds * measurement.model_share
        floors = {"arithmetic": cost.multiply_adds / self.multiply_add_rate / seconds}
        if not self.compiled:
            floors["traffic"] = cost.n_bytes / self.bandwidth / seconds
            floors["starts"] = cost.n_operations * self.start_seconds / seconds
        return floors

    def limit(self, measurement: Measurement) -> str:
        """Return what takes most of the time.

        ``"arithmetic"``, ``"traffic"``, or ``"overhead"``, which is what the model takes beyond
        them: the start of each operation, and whatever else runs on the machine; ``"neighbour
        list"`` or ``"calculator"``, where the model is not what takes the time.
        """
        shares = {kind: s for kind, s in self.floors(measurement).items() if kind != "starts"}
        shares["overhead"] = max(0.0, 1.0 - sum(shares.values()))
        parts = {kind: measurement.model_share * share for kind, share in shares.items()}
        parts |= {"neighbour list": measurement.list_share, "calculator": measurement.rest_share}
        return max(parts, key=parts.__getitem__)

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers as plain values, for a JSON file."""
        values = asdict(self)
        for measurement, entry in zip(self.measurements, values["measurements"], strict=True):
            entry["rest_share"] = measurement.rest_share
            entry["atoms_per_second"] = measurement.atoms_per_second
            entry["ns_per_day"] = measurement.ns_per_day(self.timestep)
            entry["floors"] = self.floors(measurement)
            entry["limit"] = self.limit(measurement)
        return values


def benchmark(
    potential: Potential,
    structures: Mapping[str, Atoms] | None = None,
    timestep: float = 1.0,
    seconds: float = 3.0,
    compiled: bool = False,
) -> Benchmark:
    """Measure energies and forces of moving atoms, with the threads and the device in use.

    Atoms tremble around their places, so that the neighbour list is made anew now and then, as in
    dynamics; the integrator is not measured.

    Parameters
    ----------
    potential
        On its device, in its dtype, its weights without gradients.
    structures
        By name; packings of the potential's elements if none is given.
    timestep
        Of the dynamics that the speed is told for, fs.
    seconds
        Time for each structure, but for at least five steps after some to warm up.
    compiled
        Compile the potential first.

    Raises
    ------
    ValueError
        If a time is not above zero, or a structure has no atoms or unknown elements.
    RuntimeError
        If it cannot be compiled (see :func:`eqpot.compilation.compile_potential`).
    """
    for name, value in (("timestep", timestep), ("seconds", seconds)):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"`{name}` must be above zero, got {value}")
    if structures is None:
        structures = packings(potential)
    for name, atoms in structures.items():
        if len(atoms) == 0:
            raise ValueError(f"{name}: must have atoms, got none")
        potential.check_elements(atoms.numbers.tolist(), name)
    device, dtype = potential.anchor.device, potential.anchor.dtype
    calculator = _TimedCalculator(potential, compiled=compiled)
    measurements = [
        _measure(potential, calculator, name, atoms, seconds) for name, atoms in structures.items()
    ]
    return Benchmark(
        describe_machine(device),
        str(dtype).removeprefix("torch."),
        timestep,
        multiply_add_rate(dtype, device),
        bandwidth(device),
        start_seconds(device),
        measurements,
        compiled,
    )


def packings(potential: Potential) -> dict[str, Atoms]:
    """Return structures of the potential's elements with as many neighbours as its data have."""
    assert isinstance(potential.model, GauntModel)
    mean_neighbors = potential.model.avg_num_neighbors
    numbers, r_max = potential.atomic_numbers, potential.r_max
    return {f"packing of {n**3}": packing(numbers, n, mean_neighbors, r_max) for n in SIDES}


def _measure(
    potential: Potential, calculator: "_TimedCalculator", source: str, atoms: Atoms, seconds: float
) -> Measurement:
    """Return the measurement of one structure; arguments as :func:`benchmark`."""
    device = potential.anchor.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    atoms = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    atoms.calc = calculator
    tremble = _Tremble(atoms)
    times: list[float] = []
    for step in range(-_WARM_UP, 10**6):
        if step == 0:
            calculator.list_seconds = calculator.model_seconds = 0.0
        tremble.step()
        started = time.perf_counter()
        atoms.get_forces()
        if step >= 0:
            times.append(time.perf_counter() - started)
        if len(times) >= _FEWEST and sum(times) > seconds:
            break
    memory = peak_memory()
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device) / 2**20
    shares = calculator.list_seconds / sum(times), calculator.model_seconds / sum(times)
    edges, _ = neighbor_list(atoms.positions, atoms.cell[:], atoms.pbc, potential.r_max)
    return Measurement(
        source,
        len(atoms),
        edges.shape[1] / len(atoms),
        len(times),
        statistics.median(times),
        *shares,
        _cost(potential, calculator, atoms),
        memory,
    )


def _cost(potential: Potential, calculator: "_TimedCalculator", atoms: Atoms) -> Cost:
    """Return what the model computes of a structure."""
    if not calculator.compiled:
        with CostCounter(STAGES) as counter:
            calculator.calculate(atoms, ["forces"])
        return counter.total()
    # what is compiled, computed as it stands, in chunks that bound the memory
    assert isinstance(potential.model, GauntModel)
    model = ChunkedModel(deployed(potential.model, compiled=True), _EDGES_COUNTED)
    frame = Frame(atoms.numbers, atoms.positions, atoms.cell[:], atoms.pbc)
    device, graph = potential.anchor.device, frame_to_graph(frame, potential.r_max)
    graph = {name: tensor.to(device) for name, tensor in graph.items()}
    total = count_evaluation(potential.with_model(model), graph).total()
    return Cost(multiply_adds=total.multiply_adds)


class _Tremble:
    """A random motion of all atoms that stays near their places, the same at every start."""

    def __init__(self, atoms: Atoms) -> None:
        self._atoms = atoms
        self._places = atoms.positions.copy()
        self._displacements = np.zeros_like(self._places)
        self._rng = np.random.default_rng(0)

    def step(self) -> None:
        """Move the atoms in place."""
        kick = self._rng.standard_normal(self._places.shape)
        self._displacements = _MEMORY * self._displacements + KICK / np.sqrt(3) * kick
        self._atoms.positions = self._places + self._displacements


class _TimedCalculator(ASECalculator):
    """The calculator, with the seconds that the neighbour list and the model have taken."""

    def __init__(self, potential: Potential, compiled: bool) -> None:
        super().__init__(potential, compiled=compiled)
        self.compiled = compiled
        self.list_seconds = self.model_seconds = 0.0

    def _inputs(
        self,
        positions: NDArray[np.float64],
        numbers: NDArray[np.int64],
        cell: NDArray[np.float64],
        pbc: NDArray[np.bool_],
    ) -> list[torch.Tensor]:
        started = time.perf_counter()
        inputs = super()._inputs(positions, numbers, cell, pbc)
        self.list_seconds += time.perf_counter() - started
        return inputs

    def _evaluate(self, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        started = time.perf_counter()
        results = super()._evaluate(inputs)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.model_seconds += time.perf_counter() - started
        return results
