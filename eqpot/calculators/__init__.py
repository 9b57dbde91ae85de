"""Doors to engines: the ASE calculator and molecular dynamics with it."""

from eqpot.calculators.ase import ASECalculator
from eqpot.calculators.dynamics import MDSettings, MDSummary, run_md

__all__ = ["ASECalculator", "MDSettings", "MDSummary", "run_md"]
