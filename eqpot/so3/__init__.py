"""Functions on the sphere: harmonics, exact point rules, products of fields."""

from eqpot.so3.gaunt import GauntProduct, gaunt_coefficients
from eqpot.so3.harmonics import degrees, spherical_harmonics
from eqpot.so3.products import SphereProduct
from eqpot.so3.rules import SphereRule, sphere_rule

__all__ = [
    "GauntProduct",
    "SphereProduct",
    "SphereRule",
    "degrees",
    "gaunt_coefficients",
    "sphere_rule",
    "spherical_harmonics",
]
