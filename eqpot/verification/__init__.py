"""Checks of a finished potential, in seconds: symmetry, derivatives, dimers, dynamics, speed."""

from eqpot.verification.checks import Check, Status
from eqpot.verification.verify import Verification, verify

__all__ = ["Check", "Status", "Verification", "verify"]
