"""Equations of motion in discrete time: velocity Verlet, Langevin (BAOAB) and Martyna-Tobias-Klein.

ASE has all three. They are written out here because a run that continues bit for bit must save all
that an integrator remembers (random generator, chains, strain), and because a fixed centre of mass
takes three degrees of freedom from the thermostat, which ASE's chains do not know: in a cell of 32
atoms, the mean temperature would be 3 % too high.

Units inside: Å, eV, u, and for time Å √(u/eV), as in ASE; ``ase.units.fs`` leads from fs to it.
"""

from typing import Any, Protocol

import numpy as np

from eqpot.calculators.dynamics.nose_hoover import NoseHooverChain
from eqpot.calculators.dynamics.system import System
from eqpot.units import BOLTZMANN


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
