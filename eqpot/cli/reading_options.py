"""The options with which commands read files, and what they mean."""

from typing import Annotated

import typer

EnergyKey = Annotated[str | None, typer.Option(help="Name of the energy in the files.")]
ForcesKey = Annotated[str | None, typer.Option(help="Name of the forces.")]
StressKey = Annotated[str | None, typer.Option(help="Name of the stress.")]
VirialKey = Annotated[str | None, typer.Option(help="Name of a virial, instead of a stress.")]
GroupKey = Annotated[str | None, typer.Option(help="Name of what a frame belongs to.")]
AtomicNumbersKey = Annotated[
    str | None, typer.Option(help="Name of the atomic numbers in npz files.")
]
PositionsKey = Annotated[str | None, typer.Option(help="Name of the positions in npz files.")]
CellKey = Annotated[str | None, typer.Option(help="Name of the cells in npz files.")]
Units = Annotated[
    list[str] | None,
    typer.Option(help='Units, such as "energy=kcal/mol,length=Angstrom"; eV and Å if not given.'),
]
ConfigType = Annotated[str, typer.Option(help="Kind of the structures, where the files name none.")]


def parse_units(entries: list[str] | None) -> dict[str, str] | None:
    """Return units by quantity from ``energy=kcal/mol,length=Angstrom``, given once or more.

    Raises
    ------
    ValueError
        If an entry is not of this form.
    """
    if not entries:
        return None
    declared: dict[str, str] = {}
    for entry in ",".join(entries).split(","):
        quantity, separator, unit = entry.partition("=")
        if not separator or not quantity.strip() or not unit.strip():
            raise ValueError(f"`--units` must be such as energy=kcal/mol, got {entry!r}")
        if quantity.strip() in declared:
            raise ValueError(f"`--units` names {quantity.strip()} twice")
        declared[quantity.strip()] = unit.strip()
    return declared
