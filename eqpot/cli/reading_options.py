"""The options with which commands read files, and what they mean."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Final

import typer

from eqpot.data import LabelKeys
from eqpot.data.conversion import ReadOptions

Units = Annotated[
    list[str] | None,
    typer.Option(help='Units, such as "energy=kcal/mol,length=Angstrom"; eV and Å if not given.'),
]

_KEYS: Final = {
    "energy_key": "Name of the energy in the files.",
    "forces_key": "Name of the forces.",
    "stress_key": "Name of the stress.",
    "virial_key": "Name of a virial, instead of a stress.",
    "group_key": "Name of what a frame belongs to.",
    "atomic_numbers_key": "Name of the atomic numbers in npz files.",
    "positions_key": "Name of the positions in npz files.",
    "cell_key": "Name of the cells in npz files.",
}
_CONFIG_TYPE: Final = "Kind of the structures, where the files name none."


def with_reading_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of reading files.

    Parameters
    ----------
    command
        Gets what the options mean as its argument ``reading``, a
        :class:`~eqpot.data.conversion.ReadOptions`. The other arguments stay as they are.

    Raises
    ------
    ValueError
        By the command that is returned, if units are not of the form of :func:`parse_units`.
    """
    signature = inspect.signature(command)
    own = [value for name, value in signature.parameters.items() if name != "reading"]
    added = [
        *(_option(name, str | None, None, text) for name, text in _KEYS.items()),
        inspect.Parameter("units", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Units),
        _option("config_type", str, "", _CONFIG_TYPE),
    ]
    whole = signature.replace(parameters=own + added)

    @wraps(command)
    def filled(*positional: Any, **named: Any) -> None:
        given = whole.bind(*positional, **named)
        given.apply_defaults()
        arguments = given.arguments
        names = LabelKeys.from_arguments({name: arguments.pop(name) for name in _KEYS})
        units = parse_units(arguments.pop("units"))
        reading = ReadOptions(names, units, arguments.pop("config_type"))
        command(**arguments, reading=reading)

    filled.__signature__ = whole  # type: ignore[attr-defined]
    return filled


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


def _option(name: str, kind: Any, default: object, text: str) -> inspect.Parameter:
    annotation = Annotated[kind, typer.Option(help=text)]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
