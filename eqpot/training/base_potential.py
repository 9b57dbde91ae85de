"""The potential from which fine-tuning starts: read, agreed with the recipe, given new elements."""

from dataclasses import dataclass
from typing import Any, Final

import torch

from eqpot.files import load_potential, read_header
from eqpot.models import GauntModel, settings_of
from eqpot.models.settings import PRESETS
from eqpot.physics.chemical_scale import nearest_element
from eqpot.physics.zbl import ZBLRepulsion
from eqpot.potential import Potential
from eqpot.training.fine_tuning_section import FineTuningSection
from eqpot.training.recipe import ModelSection, Recipe

LEARNING_RATE_FACTORS: Final = {"all": 0.25, "heads": 1.0, "low_rank": 1.0}
"""Factor on the learning rate of a fresh training, by what learns."""


@dataclass(frozen=True)
class BasePotential:
    """A potential to start from; ``str()`` gives a line.

    Attributes
    ----------
    path
        As the recipe writes it.
    header
        The document of the file, with ``file_sha256`` and ``provenance``.
    potential
        In float64, so that what is compared with it is not lost to rounding.
    """

    path: str
    header: dict[str, Any]
    potential: Potential

    @property
    def sha256(self) -> str:
        """Identity of the file, as ``eqpot info`` and exports name it."""
        return str(self.header["file_sha256"])

    def __str__(self) -> str:
        elements = " ".join(self.header["elements"])
        return (
            f"fine-tuning of {self.path} (sha256 {self.sha256}): elements {elements}, "
            f"r_max {self.header['r_max']} Å"
        )


def read_base_potential(section: FineTuningSection) -> BasePotential | None:
    """Return the potential that a recipe starts from, or ``None`` if it starts afresh.

    Raises
    ------
    OSError, ValueError
        As :func:`eqpot.files.load_potential`; names the key of the recipe.
    """
    path = section.potential
    if path is None:
        return None
    try:
        header = read_header(path)
        potential = load_potential(path, torch.float64, weights=section.weights)
    except (OSError, ValueError) as error:
        hint = "; give the native file (.eqpot)" if "not a potential file" in str(error) else ""
        raise type(error)(f"`fine_tuning.potential`: {error}{hint}") from error
    return BasePotential(path, header, potential)


def recipe_with_base(recipe: Recipe, base: BasePotential) -> Recipe:
    """Return a recipe whose section ``model`` is that of the base, checked against what it says.

    What the recipe leaves out is filled in, the factor on the learning rate too, so that the recipe
    written beside the results says all and can be run again.

    Raises
    ------
    ValueError
        If the recipe asks for another model than that of the base; names every difference.
    """
    section, header = recipe.model, base.header
    given = section.model_fields_set
    settings = header["model"]["settings"]
    own: dict[str, Any] = {
        "kind": header["model"]["kind"],
        "r_max": header["r_max"],
        "repulsion": header["repulsion"] is not None,
    }
    wanted = {name: getattr(section, name) for name in own if name in given}
    if "preset" in given:
        wanted |= settings_of(section.kind, section.preset, section.changes()).as_dict()
    wanted |= section.changes()
    if wanted.get("n_element_channels") == 0:  # a preset leaves it to the elements
        del wanted["n_element_channels"]
    of_base = own | settings
    differences = [
        f"`model.{name}` is {value} in the recipe and {of_base[name]} in the potential"
        for name, value in wanted.items()
        if value != of_base[name]
    ]
    if differences:
        raise ValueError(
            f"{base.path}: {'; '.join(differences)}; leave the section `model` out: fine-tuning "
            "takes it from the potential"
        )
    preset = section.preset
    if "preset" not in given:
        equal = [name for name, known in PRESETS.items() if known.as_dict() == settings]
        preset = equal[0] if equal else preset  # type: ignore[assignment]
    known = PRESETS[preset].as_dict()
    changes = {name: value for name, value in settings.items() if value != known[name]}
    factor = recipe.fine_tuning.learning_rate_factor
    if factor is None:
        factor = LEARNING_RATE_FACTORS[recipe.fine_tuning.train]
    return recipe.model_copy(
        update={
            "model": ModelSection(preset=preset, **own, **changes),
            "fine_tuning": recipe.fine_tuning.model_copy(update={"learning_rate_factor": factor}),
        }
    )


def with_elements(potential: Potential, elements: list[int]) -> tuple[Potential, dict[int, int]]:
    """Return a copy of a potential that knows more elements, and of which element each is a copy.

    A new element begins as the chemically nearest known one: the weights of a real element are a
    point at which the network has sensible energies and forces, which the mean over elements is
    not. Nothing changes for known elements; their E0s stay, those of new ones are zero.

    Parameters
    ----------
    potential
        Stays as it is.
    elements
        New atomic numbers, appended to the known ones.

    Raises
    ------
    ValueError
        If an element has no place on the chemical scale, or no covalent radius that the repulsion
        of the potential needs.
    """
    known = potential.atomic_numbers
    model = potential.model
    assert isinstance(model, GauntModel)
    origin_of = {z: nearest_element(z, known) for z in elements}
    origins = [*range(len(known)), *(known.index(origin_of[z]) for z in elements)]
    repulsion = potential.repulsion
    if repulsion is not None and elements:
        new = ZBLRepulsion.of_elements(elements).to(repulsion.radii)
        repulsion = ZBLRepulsion(
            torch.cat([repulsion.charges, new.charges]), torch.cat([repulsion.radii, new.radii])
        )
    extended = Potential(
        model.with_species(origins),
        [*known, *elements],
        [*potential.reference_energies, *(0.0 for _ in elements)],
        potential.scale,
        potential.r_max,
        repulsion,
    )
    return extended.to(next(model.parameters())), origin_of
