"""``eqpot data``: convert, split and describe reference data."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from numpy.typing import NDArray

from eqpot.cli.audit import audit
from eqpot.data import Frame, LabelKeys, LabelReport, write_store
from eqpot.data.checksums import sha256_of
from eqpot.data.conversion import ReadOptions, iter_files, n_bytes_of
from eqpot.data.extxyz_writing import write_extxyz
from eqpot.data.groups import strata, trajectory_groups
from eqpot.data.readers.reading import file_format
from eqpot.data.splits import split_frames
from eqpot.data.summary import Summary
from eqpot.durable import write_durably
from eqpot.progress import StepProgress

EnergyKey = Annotated[str | None, typer.Option(help="Name of the energy in the files.")]
ForcesKey = Annotated[str | None, typer.Option(help="Name of the forces.")]
StressKey = Annotated[str | None, typer.Option(help="Name of the stress.")]
VirialKey = Annotated[str | None, typer.Option(help="Name of a virial, instead of a stress.")]
GroupKey = Annotated[str | None, typer.Option(help="Name of what a frame belongs to.")]
Units = Annotated[
    list[str] | None,
    typer.Option(help='Units, such as "energy=kcal/mol,length=Angstrom"; eV and Å if not given.'),
]
_MEGABYTE = 1_000_000
_STORES = (".h5", ".hdf5")
_EXTXYZ = (".extxyz", ".xyz")


def convert(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT... OUTPUT",
            help="Files and DeePMD folders of any formats; last the file to write: .h5 or .extxyz.",
        ),
    ],
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    virial_key: VirialKey = None,
    group_key: GroupKey = None,
    atomic_numbers_key: Annotated[
        str | None, typer.Option(help="Name of the atomic numbers in npz files.")
    ] = None,
    positions_key: Annotated[
        str | None, typer.Option(help="Name of the positions in npz files.")
    ] = None,
    cell_key: Annotated[str | None, typer.Option(help="Name of the cells in npz files.")] = None,
    units: Units = None,
    config_type: Annotated[
        str, typer.Option(help="Kind of the structures, where the files name none.")
    ] = "",
    jobs: Annotated[int, typer.Option(help="Processes that parse.")] = 1,
) -> None:
    """Convert files of any formats into one store, or into one extended XYZ file."""
    if len(inputs) < 2:
        raise typer.BadParameter("give one input or more, and the file to write")
    *sources, output = inputs
    keys = LabelKeys(
        energy=energy_key,
        forces=forces_key,
        stress=stress_key,
        virial=virial_key,
        group=group_key,
        atomic_numbers=atomic_numbers_key,
        positions=positions_key,
        cell=cell_key,
    )
    options = ReadOptions(keys, parse_units(units), config_type)
    if output.suffix.lower() not in (*_STORES, *_EXTXYZ):
        raise ValueError(f"{output}: must end in .h5 or .extxyz, so that its format is known")
    if any(output.exists() and source.exists() and output.samefile(source) for source in sources):
        raise ValueError(f"{output}: is also an input; name another file to write")
    for source in sources:
        file_format(source)  # a missing file is told before the others are read
    reports: dict[Path, LabelReport] = {}
    with StepProgress("converting", unit="MB") as progress:
        frames = _shown(sources, options, jobs, reports, progress)
        n_frames = _write(output, frames, sources)
    for path in sources:
        typer.echo(f"{path}: {reports[path]}")
    typer.echo(f"written: {output}, {n_frames} frames")


def split(
    file: Annotated[Path, typer.Argument(help="A file of frames of any format.")],
    fractions: Annotated[
        str, typer.Option(help="Parts to train, validate and (optional) test.")
    ] = "0.8/0.1/0.1",
    seed: Annotated[int, typer.Option(help="Of what is drawn; the same gives the same.")] = 0,
    by: Annotated[
        Literal["random", "group", "stratified"],
        typer.Option(
            help="Draw frames; or whole trajectories and blocks of them, so that neighbours in "
            "time stay together; or evenly of each config_type and composition."
        ),
    ] = "group",
    group_key: GroupKey = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Name of the results: NAME_train.h5 and so on for NAME.h5 or NAME.extxyz, or one "
            "file of indices for NAME.json. Without it stores beside the input."
        ),
    ] = None,
    units: Units = None,
) -> None:
    """Divide frames into sets to train, validate and test."""
    parts = parse_fractions(fractions)
    output = file.with_suffix(".h5") if output is None else output
    if output.suffix.lower() not in (*_STORES, *_EXTXYZ, ".json"):
        raise ValueError(f"{output}: must end in .h5, .extxyz or .json")
    options = ReadOptions(LabelKeys(group=group_key), parse_units(units))

    def frames() -> Iterator[Frame]:
        return iter_files([file], options)

    groups = trajectory_groups(frames()) if by == "group" else None
    kinds = strata(frames()) if by == "stratified" else None
    test = parts[2] if len(parts) == 3 else 0.0
    result = split_frames(frames(), parts[1], seed, test_fraction=test, groups=groups, strata=kinds)
    typer.echo(str(result))
    named = {"train": result.train, "validation": result.validation, "test": result.test}
    if output.suffix.lower() == ".json":
        document = {
            "file": file.name,
            "sha256": sha256_of(file),
            "by": by,
            "fractions": list(parts),
            "seed": seed,
            **{name: indices.tolist() for name, indices in named.items()},
        }
        write_durably(output, (json.dumps(document) + "\n").encode())
        typer.echo(f"written: {output}")
        return
    for name, indices in named.items():
        if len(indices) == 0:
            continue
        target = output.with_name(f"{output.stem}_{name}{output.suffix}")
        _write(target, _chosen(frames(), indices), [file])
        typer.echo(f"written: {target}, {len(indices)} frames")


def info(
    file: Annotated[Path, typer.Argument(help="A file of frames of any format.")],
    units: Units = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a file of frames holds."""
    found = file_format(file)
    summary = Summary()
    reports: dict[Path, LabelReport] = {}
    options = ReadOptions(units=parse_units(units), require_labels=False)
    for frame in iter_files([file], options, reports=reports):
        summary.add(frame)
    about = {
        "file": str(file),
        "format": found,
        "n_bytes": n_bytes_of(file),
        "sha256": sha256_of(file),
        **summary.as_dict(),
        "label_names": {
            label: list(names) for label, names in reports[file].names.items() if names
        },
        "other_names": sorted(reports[file].unlabelled_keys),
        "remarks": reports[file].remarks,
    }
    typer.echo(json.dumps(about, indent=1) if as_json else _described(about))


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


def parse_fractions(text: str) -> tuple[float, ...]:
    """Return two or three fractions from ``0.8/0.1/0.1``.

    Raises
    ------
    ValueError
        If they are not so many, not above zero, or do not add up to 1.
    """
    try:
        parts = tuple(float(word) for word in text.split("/"))
    except ValueError:
        parts = ()
    if (
        len(parts) not in (2, 3)
        or not all(part > 0 for part in parts)
        or abs(sum(parts) - 1) > 1e-6
    ):
        raise ValueError(
            f"`--fractions` must be two or three numbers that add up to 1, such as 0.8/0.1/0.1, "
            f"got {text!r}"
        )
    return parts


def _shown(
    sources: list[Path],
    options: ReadOptions,
    jobs: int,
    reports: dict[Path, LabelReport],
    progress: StepProgress,
) -> Iterator[Frame]:
    """Yield frames and move the progress, which counts bytes: frames to come cannot be known."""
    total = sum(n_bytes_of(source) for source in sources)
    progress.start(total // _MEGABYTE)

    def tell(n_bytes: int) -> None:
        pace = progress.step(n_bytes // _MEGABYTE)
        if pace is not None:
            progress.line(
                f"{n_bytes / _MEGABYTE:.0f} of {total / _MEGABYTE:.0f} MB, {pace.rate:.1f} MB/s, "
                f"{pace.remaining:.0f} s to go"
            )

    yield from iter_files(sources, options, n_jobs=jobs, reports=reports, progress=tell)


def _write(output: Path, frames: Iterator[Frame], sources: list[Path]) -> int:
    if output.suffix.lower() in _STORES:
        return write_store(output, frames, sources=sources)
    return write_extxyz(output, frames)


def _chosen(frames: Iterator[Frame], indices: NDArray[np.int64]) -> Iterator[Frame]:
    wanted = iter(indices.tolist())
    following = next(wanted, None)
    for index, frame in enumerate(frames):
        if index == following:
            yield frame
            following = next(wanted, None)


def _described(about: dict[str, Any]) -> str:
    lines = []
    for name, value in about.items():
        if isinstance(value, dict):
            value = ", ".join(
                f"{key or '(none)'} {_described_entry(n)}" for key, n in value.items()
            )
        elif isinstance(value, list):
            value = _described_entry(value)
        if value not in (None, ""):
            lines.append(f"{name.replace('_', ' '):<30} {value}")
    return "\n".join(lines)


def _described_entry(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    if len(value) == 2 and all(isinstance(x, int | float) for x in value):
        return " to ".join(f"{x:.6g}" for x in value)
    return "; ".join(str(x) for x in value)


app = typer.Typer(no_args_is_help=True, help="Convert, split and describe reference data.")
app.command("convert")(convert)
app.command("split")(split)
app.command("info")(info)
app.command("audit")(audit)
