"""Doors to engines: the ASE calculator and molecular dynamics with it."""

from eqpot.calculators.ase import ASECalculator

__all__ = ["ASECalculator"]
