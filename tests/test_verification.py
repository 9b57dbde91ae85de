"""The checks of a potential pass what obeys the laws, and find what does not."""

import dataclasses

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from eqpot import keys
from eqpot.data import Frame
from eqpot.export import export_torchscript
from eqpot.files import save_potential
from eqpot.units import BOLTZMANN
from eqpot.verification import Status, verify
from eqpot.verification.checks import judge_derivatives, judge_dimers, judge_drift, judge_symmetry
from eqpot.verification.derivatives import check_derivatives, extrapolated_slope
from eqpot.verification.dimers import (
    count_sign_changes,
    dimer_curves,
    find_hole,
    shortest_distances,
)
from eqpot.verification.dynamics import run_nve
from eqpot.verification.prediction import Deadline, calmest, representatives
from eqpot.verification.symmetry import check_symmetry
from potentials import random_potential, soft_potential


def frames_of(*structures, **labels):
    return [
        Frame(a.numbers, a.positions, a.cell[:], a.pbc, source=f"frame {i}", **labels)
        for i, a in enumerate(structures)
    ]


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(0)
    structures = [molecule("H2O"), bulk("Si", cubic=True), molecule("CH3OH")]
    for atoms in structures:
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    return frames_of(*structures)


class Spoiled(torch.nn.Module):
    """A potential whose results are changed by a function of the graph."""

    def __init__(self, potential, change):
        super().__init__()
        self.inner, self.change = potential, change
        self.r_max, self.species_of = potential.r_max, potential.species_of

    def forward(self, graph):
        out = self.inner(graph)
        self.change(graph, out)
        return out


def prefer_an_axis(graph, out):
    out[keys.ENERGY] = out[keys.ENERGY] + 1e-6 * graph[keys.POSITIONS][:, 0].std()


def halve_forces(graph, out):
    out[keys.FORCES] = 0.999 * out[keys.FORCES]


def negate_stress(graph, out):
    out[keys.STRESS] = -out[keys.STRESS]


def test_a_sound_potential_passes(frames):
    potential = random_potential()
    symmetry = check_symmetry(potential, frames, 30)
    assert set(symmetry.operations) == {"rotation", "reflection", "translation", "permutation"}
    assert symmetry.n_frames == 3
    assert all(one.stress is not None for one in symmetry.operations.values())
    assert judge_symmetry(symmetry).status == Status.GOOD
    found = check_derivatives(potential, frames, 30)
    assert found.stress is not None
    assert judge_derivatives(found).status == Status.GOOD


def test_a_preferred_axis_is_found(frames):
    symmetry = check_symmetry(Spoiled(random_potential(), prefer_an_axis), frames, 30)
    assert symmetry.operations["rotation"].energy > 1e-9
    assert symmetry.operations["translation"].energy < 1e-11
    assert judge_symmetry(symmetry).status == Status.BAD


@pytest.mark.parametrize("change", [halve_forces, negate_stress])
def test_wrong_derivatives_are_found(change, frames):
    found = check_derivatives(Spoiled(random_potential(), change), frames, 30)
    assert judge_derivatives(found).status == Status.BAD
    # the slope of the energy is right: it misses a thousandth of the force, or twice the stress
    if change is halve_forces:
        assert 1e-4 < found.forces < 1e-1
    else:
        assert found.stress == pytest.approx(2.0, rel=1e-5)


def test_slope_of_a_known_function():
    assert extrapolated_slope(lambda x: np.exp(2 * x)) == pytest.approx(2.0, abs=1e-11)


def test_curve_of_a_morse_potential_is_sound_and_a_hole_is_found():
    r = np.linspace(0.3, 4.5, 300)
    well = np.exp(-1.5 * (r - 1.5))
    energy, force = 4 * (well**2 - 2 * well), 12 * (well**2 - well)
    assert count_sign_changes(force) == 1
    assert find_hole(r, energy, force, 1.0, 1.4) == (None, None)
    # a wall of Gaussian shape at 0.9 Å, behind which atoms attract
    energy = 5 * np.exp(-(((r - 0.9) / 0.2) ** 2))
    force = 10 * (r - 0.9) / 0.04 * np.exp(-(((r - 0.9) / 0.2) ** 2))
    distance, barrier = find_hole(r, energy, force, 1.0, 1.4)
    assert distance == pytest.approx(0.9, abs=0.02)
    assert barrier == pytest.approx(5 * (1 - np.exp(-6.25)), abs=0.05)
    assert count_sign_changes(force) == 1
    # the attraction of the Morse curve lies within reach of a bond of 1.5 Å, not of one of 2.6 Å
    energy, force = 4 * (well**2 - 2 * well), 12 * (well**2 - well)
    distance, barrier = find_hole(r, energy, force, 1.8, 4.5)
    assert distance == pytest.approx(4.5) and barrier == 0.0


def test_dimers_cover_all_pairs_and_know_the_data(frames):
    potential = random_potential(repulsion=True)
    dimers = dimer_curves(potential, frames, 60)
    n = len(potential.atomic_numbers)
    assert len(dimers.curves) == n * (n + 1) // 2
    assert dimers.n_left_out == 0
    silicon = next(curve for curve in dimers.curves if curve.symbols == ("Si", "Si"))
    distances = np.linalg.norm(frames[1].positions[0] - frames[1].positions[1:], axis=1)
    assert silicon.shortest_in_data <= distances.min() + 1e-12
    assert silicon.distances[0] == pytest.approx(0.2 * 2 * 1.11, abs=1e-6)  # radius of Cordero 2008
    assert silicon.distances[-1] == potential.r_max
    # nuclear repulsion is a wall that no network of this scale can pull down
    assert all(curve.energies[0] > curve.energies[-1] for curve in dimers.curves)
    # energies and forces belong together
    slope = np.gradient(silicon.energies, silicon.distances)
    near = silicon.distances > 1.5
    assert np.abs(slope + silicon.forces)[near][1:-1].max() < 0.05 * np.abs(silicon.forces).max()


def test_a_low_wall_is_bad_news():
    dimers = dimer_curves(soft_potential(), [], 0)
    assert len(dimers.curves) == 1 and dimers.n_left_out == 9
    hole = dataclasses.replace(dimers.curves[0], hole_distance=0.5, hole_barrier=0.3)
    for repulsion, remedy in (
        (False, "`model.repulsion: true`"),
        (True, "frames of shorter distances"),
    ):
        check = judge_dimers(dataclasses.replace(dimers, curves=[hole]), repulsion)
        assert check.status == Status.BAD and "0.3 eV" in check.message
        assert check.message.endswith(f"{remedy}. 9 rarer pairs were left out.")
    assert hole.shortest_in_data is None


def test_shortest_distances_see_periodic_images():
    cell = np.diag([2.0, 9.0, 9.0])
    frame = Frame(np.array([1, 6]), np.array([[0.1, 0, 0], [1.9, 0, 0]]), cell, [True] * 3)
    pairs, counts, n_read = shortest_distances([frame], 3.0, Deadline(10))
    assert pairs == pytest.approx({(1, 6): 0.2, (1, 1): 2.0, (6, 6): 2.0})
    assert counts == {1: 1, 6: 1} and n_read == 1


def test_dynamics_keeps_energy_and_tells_its_temperature(frames):
    drift = run_nve(soft_potential(scale=0.02), frames[1:2], 2)
    check = judge_drift(drift)
    assert check.status == Status.GOOD, check.message
    assert drift.n_steps >= 10 and len(drift.times) == drift.n_steps + 1
    # the kinetic energy of n atoms whose centre rests is 3 (n - 1) / 2 kT
    kinetic = 1e-3 * drift.kinetic.mean() * drift.n_atoms
    assert drift.temperature == pytest.approx(
        2 * kinetic / (3 * (drift.n_atoms - 1) * BOLTZMANN), rel=1e-6
    )


def test_dynamics_with_forces_that_are_none_drifts(frames, monkeypatch):
    from eqpot.calculators import ASECalculator

    sound = ASECalculator.calculate

    def wrong(self, *arguments):
        sound(self, *arguments)
        self.results["forces"] = 0.5 * self.results["forces"]

    monkeypatch.setattr(ASECalculator, "calculate", wrong)
    assert judge_drift(run_nve(random_potential(), frames[1:2], 1)).status == Status.BAD


def test_frames_are_chosen_from_each_kind_and_for_calm():
    small, large = molecule("H2O"), bulk("Si", cubic=True) * (4, 3, 4)
    kinds = [
        dataclasses.replace(frame, config_type=kind)
        for frame, kind in zip(
            frames_of(large, small, small, small), ["a", "a", "b", "c"], strict=True
        )
    ]
    chosen = representatives(kinds, 3)
    assert [frame.config_type for frame in chosen] == ["a", "b", "c"]
    assert len(chosen[0]) == 3  # the large one waits
    wild, calm = (
        dataclasses.replace(frames_of(bulk("Si", cubic=True))[0], forces=np.full((8, 3), f))
        for f in (2.0, 0.1)
    )
    assert calmest([wild, calm]) is calm
    assert calmest(frames_of(molecule("H2O")[:1])) is None


def test_verify_tells_what_went_wrong_and_goes_on(frames, tmp_path):
    potential = random_potential(torch.float32)
    save_potential(tmp_path / "p.eqpot", potential)
    export_torchscript(tmp_path / "p.eqpot", tmp_path / "p.pt")
    lines = []
    found = verify(
        tmp_path / "p.eqpot", frames, frames, export=tmp_path / "p.pt", seconds=2, tell=lines.append
    )
    status = {check.name: check.status for check in found.checks}
    assert status["symmetry"] == status["derivatives"] == status["export"] == Status.GOOD
    assert len(lines) == 7
    assert found.speed.n_atoms == 8 and found.speed.steps_per_second > 0
    assert found.machine["n_threads"] == torch.get_num_threads()
    assert found.machine["peak_memory_mib"] > 50
    (tmp_path / "p.pt").write_bytes(b"torn")
    broken = verify(tmp_path / "p.eqpot", frames, frames, export=tmp_path / "p.pt", seconds=0.1)
    export = next(check for check in broken.checks if check.name == "export")
    assert export.status == Status.BAD and "p.pt" in export.message
    assert broken.export is None and broken.symmetry is not None
