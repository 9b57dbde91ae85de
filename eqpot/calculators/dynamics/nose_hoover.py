"""Nosé-Hoover chains: thermostats that are equations of motion themselves."""

from typing import Any, Final

import numpy as np

_CUBE_ROOT: Final = 2.0 ** (1 / 3)
_YOSHIDA: Final = (1 / (2 - _CUBE_ROOT), -_CUBE_ROOT / (2 - _CUBE_ROOT), 1 / (2 - _CUBE_ROOT))
"""Weights of three second-order steps that make one of fourth order (Yoshida 1990, eq. 2.11)."""


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
