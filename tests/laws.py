"""The laws that any potential must obey, as one contract: ``check_potential``.

Bars are those of float64. Energies are compared in eV/atom, forces relative to their root mean
square, stresses relative to their largest component; nothing can be known better than 64 units in
the last place of the total energy, or for derivatives of the largest partial force.
"""

import numpy as np
import torch
from ase import Atoms

from eqpot import keys
from eqpot.data import collate
from potentials import graph_of
from strategies import random_rotation

ENERGY_BAR = 1e-12
FORCE_BAR = 1e-11
DERIVATIVE_BAR = 1e-8


def predict(potential, atoms):
    """Return energy (eV), forces and stress as float64 numpy arrays."""
    out = potential(graph_of(atoms, potential.r_max))
    return tuple(out[name].double().numpy() for name in (keys.ENERGY, keys.FORCES, keys.STRESS))


def energy_bar(energy, n_atoms):
    return max(ENERGY_BAR, 64 * np.spacing(np.abs(energy).max()) / n_atoms)


def assert_same_energy(one, other, n_atoms):
    assert np.abs(one - other).max() / n_atoms <= energy_bar(one, n_atoms)


def assert_same_forces(one, other, bar=FORCE_BAR):
    rms = max(np.sqrt((one**2).mean()), 1e-3)
    assert np.abs(one - other).max() <= bar * rms


def assert_same_stress(one, other, bar=FORCE_BAR):
    assert np.abs(one - other).max() <= bar * max(np.abs(one).max(), 1e-4)


def check_symmetry(potential, atoms, rng):
    """Energy is invariant; forces and stress turn with rotation, reflection and renumbering."""
    energy, forces, stress = predict(potential, atoms)
    for _ in range(3):
        turn = random_rotation(rng) * rng.choice([1, -1])
        order = rng.permutation(len(atoms))
        turned = atoms[order]
        turned.set_cell(atoms.cell[:] @ turn.T)
        turned.positions = atoms.positions[order] @ turn.T + rng.uniform(-3, 3, 3)
        energy_t, forces_t, stress_t = predict(potential, turned)
        assert_same_energy(energy, energy_t, len(atoms))
        assert_same_forces(forces[order] @ turn.T, forces_t)
        assert_same_stress(turn @ stress[0] @ turn.T, stress_t[0])


def check_forces(potential, atoms, rng, n_directions=2):
    """Forces are -dE/dx: extrapolated central differences along random directions."""
    energy, forces, _ = predict(potential, atoms)
    rms = max(np.sqrt((forces**2).mean()), 1e-3)
    for _ in range(n_directions):
        direction = rng.normal(size=forces.shape)
        direction /= np.linalg.norm(direction)

        def moved(step, direction=direction):
            other = atoms.copy()
            other.positions += step * direction
            return predict(potential, other)[0][0]

        slope, error = extrapolated_slope(moved)
        floor = 64 * np.spacing(abs(energy[0])) / 1e-3
        assert abs(slope + (forces * direction).sum()) <= DERIVATIVE_BAR * rms + floor + error
    assert np.abs(forces.sum(axis=0)).max() <= FORCE_BAR * rms * len(atoms)


def check_stress(potential, atoms):
    """Stress is the strain derivative of the energy over the volume, all six components."""
    energy, _, stress = predict(potential, atoms)
    volume = abs(np.linalg.det(atoms.cell[:]))
    largest = max(np.abs(stress).max(), 1e-4)
    for a in range(3):
        for b in range(a, 3):

            def strained(step, a=a, b=b):
                strain = np.eye(3)
                strain[a, b] += step / 2
                strain[b, a] += step / 2
                other = atoms.copy()
                other.set_cell(atoms.cell[:] @ strain, scale_atoms=True)
                return predict(potential, other)[0][0]

            slope, error = extrapolated_slope(strained)
            floor = (64 * np.spacing(abs(energy[0])) / 1e-3 + error) / volume
            assert abs(slope / volume - stress[0, a, b]) <= DERIVATIVE_BAR * largest + floor


def extrapolated_slope(function, first=2e-3):
    """Return a derivative at 0 by Richardson's extrapolation, and its own estimate of the error."""
    rows = []
    for level in range(4):
        step = first / 2**level
        row = [(function(step) - function(-step)) / (2 * step)]
        for order in range(1, level + 1):
            row.append(row[-1] + (row[-1] - rows[-1][order - 1]) / (4**order - 1))
        rows.append(row)
    return rows[-1][-1], min(1e-6, 2 * abs(rows[-1][-1] - rows[-1][-2]))


def check_additivity(potential, atoms, other):
    """Two bodies 60 Å apart: energies add, forces do not change."""
    shifted = other.copy()
    shifted.positions += [60.0 + np.ptp(atoms.positions[:, 0]), 0, 0]
    pair = Atoms(atoms) + Atoms(shifted)
    together = predict(potential, pair)
    parts = [predict(potential, body) for body in (atoms, other)]
    assert_same_energy(together[0], parts[0][0] + parts[1][0], len(pair))
    assert_same_forces(np.concatenate([parts[0][1], parts[1][1]]), together[1])


def check_extensivity(potential, cell_atoms, repeats=((1, 1, 9), (2, 2, 2), (3, 2, 1))):
    """Copies of a cell: energy multiplies, stress stays."""
    energy, _, stress = predict(potential, cell_atoms)
    for repeat in repeats:
        n = int(np.prod(repeat))
        many = predict(potential, cell_atoms * repeat)
        assert_same_energy(many[0] / n, energy, len(cell_atoms))
        assert_same_stress(stress, many[2])


def check_batch(potential, structures):
    """A batch equals its members."""
    batch = potential(collate([graph_of(atoms, potential.r_max) for atoms in structures]))
    first = 0
    for index, atoms in enumerate(structures):
        energy, forces, stress = predict(potential, atoms)
        assert_same_energy(batch[keys.ENERGY][index].numpy(), energy, len(atoms))
        assert_same_forces(forces, batch[keys.FORCES][first : first + len(atoms)].numpy())
        assert_same_stress(stress[0], batch[keys.STRESS][index].numpy())
        first += len(atoms)


def check_isolated_atoms(potential):
    """A lone atom has its E0 and no force."""
    for number, reference in zip(
        potential.atomic_numbers, potential.reference_energies, strict=True
    ):
        energy, forces, _ = predict(potential, Atoms([number], [[0.3, 0.1, -2.0]]))
        assert abs(energy[0] - reference) <= max(1e-12, 64 * np.spacing(abs(reference)))
        assert np.abs(forces).max() == 0


def check_cutoff(potential, atoms, number):
    """An atom crosses the cutoff of another: no step in energy, force or force constant."""
    r_max = potential.r_max
    axis = np.array([0.6, -0.64, 0.48])
    anchor = atoms.positions[0]

    def at(gap):
        system = atoms + Atoms([number], [anchor + (r_max + gap) * axis])
        graph = graph_of(system, r_max)
        positions = graph[keys.POSITIONS].requires_grad_()
        out = potential(graph, training=True)
        force = out[keys.FORCES][-1] @ torch.from_numpy(axis)
        (curvature,) = torch.autograd.grad(force, positions)
        along = curvature[-1] @ torch.from_numpy(axis)
        return np.array([out[keys.ENERGY].item(), force.item(), along.item()])

    delta = 1e-5
    far_out, out, inside, far_in = (at(gap) for gap in (2 * delta, delta, -delta, -2 * delta))
    # the steps on either side take the smooth variation out of the difference
    step = np.abs((out - inside) - ((far_out - out) + (inside - far_in)))
    floor = 64 * np.spacing(abs(out[0]))
    assert step[0] <= 1e-10 + floor
    assert step[1] <= 1e-8
    # the third derivative jumps: the curvature changes by a term linear in delta
    assert step[2] <= 1e-6 + 10 * delta * max(1.0, abs(out[2]))


def check_potential(potential, structures, seed=0):
    """Check every law of this file on structures by name, whose elements the potential knows."""
    rng = np.random.default_rng(seed)
    for atoms in structures.values():
        check_symmetry(potential, atoms, rng)
        check_forces(potential, atoms, rng)
        if atoms.pbc.all():
            check_stress(potential, atoms)
            if len(atoms) <= 4:
                check_extensivity(potential, atoms)
    check_isolated_atoms(potential)
    check_batch(potential, list(structures.values()))
