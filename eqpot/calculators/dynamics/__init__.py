"""Molecular dynamics that can be stopped at any moment and always go on."""

from eqpot.calculators.dynamics.run import ExplodedRunError, run_md
from eqpot.calculators.dynamics.settings import MDSettings, parse_duration
from eqpot.calculators.dynamics.summary import MDSummary
from eqpot.interruption import InterruptedRunError

__all__ = [
    "ExplodedRunError",
    "InterruptedRunError",
    "MDSettings",
    "MDSummary",
    "parse_duration",
    "run_md",
]
