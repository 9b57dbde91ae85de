"""Model families: a graph in, ``node_energy`` and ``node_features`` out.

Beside them their layers and hyper-parameters, and what computes a model in another way:
:mod:`eqpot.models.chunks`, :mod:`eqpot.models.deployment`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from eqpot.models.gaunt import GauntModel
from eqpot.models.settings import PRESETS, GauntSettings

KINDS = ("gaunt",)
"""Names of the families, as a recipe writes them under ``model.kind``."""


def settings_of(kind: str, preset: str, changes: Mapping[str, Any] | None = None) -> GauntSettings:
    """Return the hyper-parameters of a preset with some of them changed.

    Parameters
    ----------
    kind
        Model family, one of :data:`KINDS`.
    preset
        ``small``, ``medium`` or ``large``.
    changes
        Hyper-parameters that differ from the preset.

    Raises
    ------
    ValueError
        If the family, the preset or a hyper-parameter is unknown, or a value is impossible.
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {list(KINDS)}, got {kind!r}")
    if preset not in PRESETS:
        raise ValueError(f"`preset` must be one of {list(PRESETS)}, got {preset!r}")
    known = PRESETS[preset].as_dict()
    changes = changes or {}
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise ValueError(f"unknown hyper-parameters {unknown} of {kind!r}; known: {list(known)}")
    return replace(PRESETS[preset], **changes)


def build_model(
    settings: GauntSettings, n_species: int, r_max: float, avg_num_neighbors: float
) -> nn.Module:
    """Return a model with fresh weights; arguments as :class:`GauntModel`."""
    return GauntModel(settings, n_species, r_max, avg_num_neighbors)


__all__ = ["KINDS", "PRESETS", "GauntModel", "GauntSettings", "build_model", "settings_of"]
