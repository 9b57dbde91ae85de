"""Units of the package and the few factors that lead to and from them.

Inside eqpot every quantity is in eV, Å, eV/Å, eV/Å³, unified atomic mass units and fs. Factors are
those of CODATA 2018.
"""

from typing import Final

HARTREE: Final = 27.211386245988
"""1 Hartree in eV."""
BOHR: Final = 0.529177210903
"""1 Bohr in Å."""
KCAL_PER_MOL: Final = 0.04336410390059322
"""1 kcal/mol in eV (thermochemical calorie)."""
KJ_PER_MOL: Final = 0.010364269656262174
"""1 kJ/mol in eV."""
GPA: Final = 0.006241509074460763
"""1 GPa in eV/Å³."""
BOLTZMANN: Final = 8.617333262145179e-05
"""Boltzmann's constant in eV/K."""
