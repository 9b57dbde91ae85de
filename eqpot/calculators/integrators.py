"""Equations of motion in discrete time: velocity Verlet, Langevin (BAOAB) and Martyna-Tobias-Klein.

ASE has all three. They are written out here because a run that continues bit for bit must save all
that an integrator remembers (random generator, chains, strain), and because a fixed centre of mass
takes three degrees of freedom from the thermostat, which ASE's chains do not know: in a cell of 32
atoms, the mean temperature would be 3 % too high.

Units inside: Å, eV, u, and for time Å √(u/eV), as in ASE; ``ase.units.fs`` leads from fs to it.
"""

from typing import Any, Final, Protocol

import ase
import numpy as np
from numpy.typing import NDArray

from eqpot.units import BOLTZMANN

Array = NDArray[np.float64]

_CUBE_ROOT: Final = 2.0 ** (1 / 3)
_YOSHIDA: Final = (1 / (2 - _CUBE_ROOT), -_CUBE_ROOT / (2 - _CUBE_ROOT), 1 / (2 - _CUBE_ROOT))
"""Weights of three second-order steps that make one of fourth order (Yoshida 1990, eq. 2.11)."""


class System:
    """Atoms in motion: positions, momenta, cell, and what the calculator says of them.

    Parameters
    ----------
    atoms
        Structure with a calculator; only its positions and cell are changed.
    n_dof
        Degrees of freedom that hold kinetic energy.
    free
        Bool, shape (n_atoms,): the atoms that move.
    """

    def __init__(self, atoms: ase.Atoms, n_dof: int, free: NDArray[np.bool_]) -> None:
        self.atoms = atoms
        self.n_dof = n_dof
        self.free = free[:, None]
        self.masses: Array = atoms.get_masses()[:, None]
        self.positions: Array = atoms.get_positions()
        self.momenta: Array = atoms.get_momenta() * self.free
        self.cell: Array = np.array(atoms.cell)
        self.energy = 0.0
        self.forces: Array = np.zeros_like(self.positions)
        self.stress: Array | None = None

    @property
    def twice_kinetic(self) -> float:
        """Σ p²/m in eV."""
        return float(np.sum(self.momenta**2 / self.masses))

    @property
    def temperature(self) -> float:
        """Σ p²/m over the degrees of freedom and Boltzmann's constant, in K."""
        return self.twice_kinetic / (self.n_dof * BOLTZMANN)

    @property
    def volume(self) -> float:
        """Volume of the cell in Å³."""
        return float(abs(np.linalg.det(self.cell)))

    def evaluate(self, stress: bool) -> None:
        """Set energy (eV), forces (eV/Å) and, if asked for, the stress (eV/Å³, (3, 3)).

        Raises
        ------
        FloatingPointError
            If a position or the cell is not finite, before a calculator chokes on it.
        """
        if not (np.isfinite(self.positions).all() and np.isfinite(self.cell).all()):
            raise FloatingPointError("a position is not finite")
        self.atoms.set_positions(self.positions, apply_constraint=False)
        self.atoms.set_cell(self.cell, scale_atoms=False)
        # The largest question first: a calculator that answers the others along with it runs once.
        if stress:
            voigt = self.atoms.calc.get_property("stress", self.atoms)
            xx, yy, zz, yz, xz, xy = np.asarray(voigt, dtype=np.float64)
            self.stress = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        else:
            self.stress = None
        forces = self.atoms.calc.get_property("forces", self.atoms)
        self.forces = np.array(forces, dtype=np.float64) * self.free
        self.energy = float(self.atoms.calc.get_property("energy", self.atoms))

    def remove_net_momentum(self) -> None:
        """Project the momenta onto those whose sum is zero."""
        total = self.momenta.sum(axis=0)
        # In p/√m this projection is orthogonal, so a normal distribution stays one.
        self.momenta = self.momenta - self.masses / self.masses.sum() * total


class Integrator(Protocol):
    """What advances a :class:`System` and what it remembers from step to step."""

    needs_stress: bool
    """Whether a step reads the stress."""

    def step(self, stress: bool) -> None:
        """Advance by a time step; ``stress`` asks for the stress of the new state as well."""

    def conserved(self) -> float:
        """Return the energy in eV that would stay constant in the limit of a small step."""

    def get_state(self) -> dict[str, Any]:
        """Return the memory as plain numbers and lists, exact when written as JSON."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the memory."""


class VelocityVerlet:
    """Newton's equations: constant energy.

    Parameters
    ----------
    system
        The atoms.
    timestep
        Å √(u/eV).

    References
    ----------
    Swope, Andersen, Berens, Wilson, J. Chem. Phys. 76, 637 (1982).
    """

    needs_stress = False

    def __init__(self, system: System, timestep: float) -> None:
        self.system, self.timestep = system, timestep

    def step(self, stress: bool) -> None:
        """Half a kick, drift, half a kick."""
        system, half = self.system, self.timestep / 2
        system.momenta = system.momenta + half * system.forces
        system.positions = system.positions + self.timestep * system.momenta / system.masses
        system.evaluate(stress)
        system.momenta = system.momenta + half * system.forces

    def conserved(self) -> float:
        """Return potential plus kinetic energy in eV."""
        return self.system.energy + self.system.twice_kinetic / 2

    def get_state(self) -> dict[str, Any]:
        """Return nothing: all is in positions and momenta."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore nothing."""


class Langevin:
    r"""Langevin dynamics, split as BAOAB: constant temperature.

    .. math:: \dot p = F - \gamma p + \sqrt{2 \gamma m k_B T}\, \xi(t)

    Among the splittings, this one has the smallest error of positions in the time step.

    Parameters
    ----------
    system
        The atoms.
    timestep
        Å √(u/eV).
    temperature
        K.
    friction
        γ, in units of 1/time.
    fix_center
        Take the net momentum out of the noise.
    generator
        Source of the noise.

    References
    ----------
    Leimkuhler, Matthews, Appl. Math. Res. Express 2013, 34 (2013), BAOAB;
    Bussi, Parrinello, Phys. Rev. E 75, 056707 (2007), eq. 13, the conserved energy.
    """

    needs_stress = False

    def __init__(
        self,
        system: System,
        timestep: float,
        temperature: float,
        friction: float,
        fix_center: bool,
        generator: np.random.Generator,
    ) -> None:
        self.system, self.timestep, self.fix_center = system, timestep, fix_center
        self._generator = generator
        self._keep = float(np.exp(-friction * timestep))
        variance = -np.expm1(-2 * friction * timestep) * BOLTZMANN * temperature
        self._noise = np.sqrt(variance * system.masses) * system.free
        self._heat = 0.0

    def step(self, stress: bool) -> None:
        """Half a kick, half a drift, friction and noise, half a drift, half a kick."""
        system, half = self.system, self.timestep / 2
        system.momenta = system.momenta + half * system.forces
        system.positions = system.positions + half * system.momenta / system.masses
        before = system.twice_kinetic
        noise = self._generator.standard_normal(system.momenta.shape)
        system.momenta = self._keep * system.momenta + self._noise * noise
        if self.fix_center:
            system.remove_net_momentum()
        self._heat += (system.twice_kinetic - before) / 2
        system.positions = system.positions + half * system.momenta / system.masses
        system.evaluate(stress)
        system.momenta = system.momenta + half * system.forces

    def conserved(self) -> float:
        """Return potential plus kinetic energy minus the heat taken up so far, in eV."""
        return self.system.energy + self.system.twice_kinetic / 2 - self._heat

    def get_state(self) -> dict[str, Any]:
        """Return the heat and the state of the generator."""
        return {"heat": self._heat, "generator": self._generator.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the heat and the state of the generator."""
        self._heat = state["heat"]
        self._generator.bit_generator.state = state["generator"]


class NoseHooverChain:
    """Chain of thermostats on a set of momenta.

    Parameters
    ----------
    n_dof
        Number of momenta.
    thermal_energy
        k_B·T in eV.
    time
        Time over which the chain answers, Å √(u/eV).
    length
        Number of thermostats.

    References
    ----------
    Martyna, Klein, Tuckerman, J. Chem. Phys. 97, 2635 (1992);
    Martyna, Tuckerman, Tobias, Klein, Mol. Phys. 87, 1117 (1996), section 3, the splitting.
    """

    def __init__(self, n_dof: int, thermal_energy: float, time: float, length: int = 3) -> None:
        self.n_dof, self.thermal_energy = n_dof, thermal_energy
        self.masses = np.full(length, thermal_energy * time**2)
        self.masses[0] *= n_dof
        self.positions = np.zeros(length)
        self.momenta = np.zeros(length)

    def scale(self, twice_kinetic: float, duration: float) -> float:
        """Advance the chain and return the factor by which it scales the momenta.

        Parameters
        ----------
        twice_kinetic
            Σ p²/m of the momenta, eV.
        duration
            Å √(u/eV).
        """
        factor, last = 1.0, len(self.masses) - 1
        for weight in _YOSHIDA:
            part = weight * duration
            for link in range(last, -1, -1):
                self._kick(link, twice_kinetic * factor**2, part / 2)
            factor *= float(np.exp(-part * self.momenta[0] / self.masses[0]))
            self.positions += part * self.momenta / self.masses
            for link in range(last + 1):
                self._kick(link, twice_kinetic * factor**2, part / 2)
        return factor

    def _kick(self, link: int, twice_kinetic: float, duration: float) -> None:
        # Each link is driven by the excess kinetic energy of the one before and damped by the next.
        damping = 1.0
        if link + 1 < len(self.masses):
            rate = self.momenta[link + 1] / self.masses[link + 1]
            damping = float(np.exp(-duration / 2 * rate))
        if link == 0:
            excess = twice_kinetic - self.n_dof * self.thermal_energy
        else:
            excess = self.momenta[link - 1] ** 2 / self.masses[link - 1] - self.thermal_energy
        momentum = self.momenta[link] * damping + duration * excess
        self.momenta[link] = momentum * damping

    def energy(self) -> float:
        """Return the energy of the chain in eV."""
        kinetic = np.sum(self.momenta**2 / self.masses) / 2
        place = self.n_dof * self.positions[0] + self.positions[1:].sum()
        return float(kinetic + self.thermal_energy * place)

    def get_state(self) -> dict[str, Any]:
        """Return positions and momenta of the links."""
        return {"positions": self.positions.tolist(), "momenta": self.momenta.tolist()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore positions and momenta of the links."""
        self.positions = np.array(state["positions"], dtype=np.float64)
        self.momenta = np.array(state["momenta"], dtype=np.float64)


def _exp_relative(x: float) -> float:
    """Return (exp(x) − 1)/x."""
    return float(np.expm1(x) / x) if x != 0 else 1.0


class MartynaTobiasKlein:
    r"""Constant temperature and pressure; the cell breathes and keeps its shape.

    With ε a third of the logarithm of the volume, W its mass, N_f the degrees of freedom, and
    chains of thermostats (not shown) on the atoms and on ε:

    .. math::

        \dot r &= p/m + (p_ε/W)\, r \\
        \dot p &= F - (1 + 3/N_f)(p_ε/W)\, p \\
        \dot ε &= p_ε/W \\
        \dot p_ε &= 3V(P - P_0) + (3/N_f) \sum p^2/m

    It samples the isothermal-isobaric ensemble exactly as the step goes to zero, and unlike
    Berendsen's barostat it conserves an energy, so errors show.

    Parameters
    ----------
    system
        The atoms, in a cell periodic in three directions, without net momentum.
    timestep
        Å √(u/eV).
    temperature
        K.
    pressure
        P₀ in eV/Å³, positive in compression.
    thermostat_time, barostat_time
        Times over which thermostat and barostat answer, Å √(u/eV).

    References
    ----------
    Martyna, Tobias, Klein, J. Chem. Phys. 101, 4177 (1994), eqs. 2.9 and 2.10;
    Tuckerman, Alejandre, López-Rendón, Jochim, Martyna, J. Phys. A 39, 5629 (2006), the splitting.
    """

    needs_stress = True

    def __init__(
        self,
        system: System,
        timestep: float,
        temperature: float,
        pressure: float,
        thermostat_time: float,
        barostat_time: float,
    ) -> None:
        self.system, self.timestep, self.pressure = system, timestep, pressure
        thermal_energy = BOLTZMANN * temperature
        self.thermostat = NoseHooverChain(system.n_dof, thermal_energy, thermostat_time)
        self.barostat = NoseHooverChain(1, thermal_energy, barostat_time)
        self.mass = (system.n_dof + 3) * thermal_energy * barostat_time**2
        self._momentum = 0.0
        self._strain = 0.0
        self._start_cell = system.cell.copy()

    def step(self, stress: bool) -> None:
        """Chains, strain and momenta by half a step; positions and cell; the same backwards."""
        system, half = self.system, self.timestep / 2
        self._scale_momenta(half)
        self._kick_strain(half)
        self._kick_atoms(half)
        growth = self.timestep * self._momentum / self.mass
        velocities = system.momenta / system.masses
        drift = self.timestep * _exp_relative(growth) * velocities
        system.positions = system.positions * np.exp(growth) + drift
        self._strain += growth
        system.cell = self._start_cell * np.exp(self._strain)
        system.evaluate(stress=True)
        self._kick_atoms(half)
        self._kick_strain(half)
        self._scale_momenta(half, barostat_last=True)

    def _scale_momenta(self, duration: float, barostat_last: bool = False) -> None:
        # The two chains act on different momenta, so their order is only a matter of rounding;
        # mirrored all the same, to keep the step its own inverse.
        if not barostat_last:
            self._scale_strain(duration)
        factor = self.thermostat.scale(self.system.twice_kinetic, duration)
        self.system.momenta = self.system.momenta * factor
        if barostat_last:
            self._scale_strain(duration)

    def _scale_strain(self, duration: float) -> None:
        self._momentum *= self.barostat.scale(self._momentum**2 / self.mass, duration)

    def _kick_strain(self, duration: float) -> None:
        system = self.system
        assert system.stress is not None
        kinetic = (1 + 3 / system.n_dof) * system.twice_kinetic
        # Stress is positive in tension, pressure in compression.
        virial = -system.volume * float(np.trace(system.stress))
        self._momentum += duration * (kinetic + virial - 3 * system.volume * self.pressure)

    def _kick_atoms(self, duration: float) -> None:
        system = self.system
        x = -duration * (1 + 3 / system.n_dof) * self._momentum / self.mass
        kick = duration * _exp_relative(x) * system.forces
        system.momenta = system.momenta * np.exp(x) + kick

    def conserved(self) -> float:
        """Return the energy of atoms, strain, chains and the work against P₀, in eV."""
        system = self.system
        atoms = system.energy + system.twice_kinetic / 2
        strain = self._momentum**2 / (2 * self.mass) + self.pressure * system.volume
        return atoms + strain + self.thermostat.energy() + self.barostat.energy()

    def get_state(self) -> dict[str, Any]:
        """Return strain, its momentum, the cell it refers to, and both chains."""
        return {
            "momentum": float(self._momentum),
            "strain": float(self._strain),
            "start_cell": self._start_cell.tolist(),
            "thermostat": self.thermostat.get_state(),
            "barostat": self.barostat.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore strain, its momentum, the cell it refers to, and both chains."""
        self._momentum, self._strain = state["momentum"], state["strain"]
        self._start_cell = np.array(state["start_cell"], dtype=np.float64)
        self.thermostat.set_state(state["thermostat"])
        self.barostat.set_state(state["barostat"])
