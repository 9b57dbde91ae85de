"""The command ``eqpot md``: molecular dynamics of a structure with a potential."""

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import ase
import ase.io
import typer

from eqpot.calculators import ASECalculator
from eqpot.calculators.dynamics import (
    InterruptedRunError,
    MDSettings,
    MDSummary,
    parse_duration,
    run_md,
)
from eqpot.calculators.dynamics.summary import ENERGY_ERROR_BAR
from eqpot.missing import missing_file
from eqpot.words import figures

_PROGRAMS = {".pt": "TorchScript", ".pth": "TorchScript", ".pt2": "compiled"}


def md(
    structure: Annotated[
        str,
        typer.Argument(
            help="Structure file of any format ASE reads; its last frame, or another one as "
            "in file.extxyz@0."
        ),
    ],
    potential: Annotated[
        Path,
        typer.Option(help="Potential: .eqpot; or TorchScript .pt or compiled .pt2 with --trust."),
    ],
    ensemble: Annotated[
        Literal["nve", "nvt", "npt"],
        typer.Option(help="Constant energy, temperature, or temperature and pressure."),
    ] = "nve",
    temperature: Annotated[float, typer.Option(help="K; also of the starting velocities.")] = 300.0,
    duration: Annotated[
        str | None, typer.Option("--time", help='Length of the run, such as "1 ps".')
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Length of the run in steps.")] = None,
    timestep: Annotated[float, typer.Option(help="fs.")] = 0.5,
    pressure: Annotated[float, typer.Option(help="GPa, for npt.")] = 0.0,
    friction: Annotated[
        float, typer.Option(help="1/fs; for npt one over the thermostat's time.")
    ] = 0.01,
    barostat_time: Annotated[float, typer.Option(help="fs, for npt.")] = 1000.0,
    seed: Annotated[int, typer.Option(help="Of velocities and noise.")] = 0,
    keep_momenta: Annotated[
        bool, typer.Option("--keep-momenta", help="Start with the momenta of the structure file.")
    ] = False,
    output: Annotated[
        Path, typer.Option(help="Folder of the results; a run that is there goes on.")
    ] = Path("md"),
    dtype: Annotated[
        Literal["float32", "float64"] | None,
        typer.Option(help="Precision of an .eqpot potential; float32 if not given."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")] = "cpu",
    interval: Annotated[int, typer.Option(help="Steps between frames of the trajectory.")] = 100,
    log_interval: Annotated[int, typer.Option(help="Steps between lines of the log.")] = 10,
    checkpoint_interval: Annotated[int, typer.Option(help="Steps between restarts.")] = 1000,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Load an exported program, which runs the code in it."),
    ] = False,
) -> None:
    """Run molecular dynamics, or go on with a run that was stopped: give the same command again.

    The output folder gets trajectory.extxyz, md.csv (energies, temperature, pressure), restart.npz
    and md.json (means, drift, speed).
    """
    settings = MDSettings(
        n_steps=_count_steps(duration, steps, timestep),
        ensemble=ensemble,
        timestep=timestep,
        temperature=temperature,
        friction=friction,
        pressure=pressure,
        barostat_time=barostat_time,
        seed=seed,
        keep_momenta=keep_momenta,
        trajectory_interval=interval,
        log_interval=log_interval,
        checkpoint_interval=checkpoint_interval,
    )
    atoms = read_structure(structure)
    atoms.calc = load_calculator(potential, dtype, device, trust)
    source = {"potential": _hash(potential), "dtype": dtype or "default"}
    try:
        summary = run_md(atoms, settings, output, source=source)
    except InterruptedRunError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(error.exit_code) from error
    typer.echo(describe(summary, output))


def read_structure(name: str) -> ase.Atoms:
    """Return a frame of a file: the last one, or that of an index after ``@``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the index is no integer, or the file cannot be read.
    """
    path, index = name, -1
    # A file whose own name has an @ is taken as it stands.
    if "@" in name and not Path(name).exists():
        path, _, text = name.rpartition("@")
        try:
            index = int(text)
        except ValueError as error:
            raise ValueError(
                f"`structure` must be a file, or file@index with an integer, got {name!r}"
            ) from error
    if not Path(path).is_file():
        raise FileNotFoundError(f"`structure`: {missing_file(Path(path))}")
    try:
        atoms = ase.io.read(path, index=index)
    except Exception as error:
        # The readers of ASE fail in as many ways as there are formats.
        is_short = isinstance(error, IndexError | StopIteration)
        reason = "it has no such frame" if is_short else f"{type(error).__name__}: {error}"
        raise ValueError(f"`structure` {name!r} cannot be read by ASE: {reason}") from error
    assert isinstance(atoms, ase.Atoms)
    return atoms


def load_calculator(potential: Path, dtype: str | None, device: str, trust: bool) -> ASECalculator:
    """Return the ASE calculator of a potential's file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is a program and not trusted or given a ``dtype``, or of another kind.
    """
    if not potential.is_file():
        raise FileNotFoundError(f"`potential`: {missing_file(potential)}")
    if potential.suffix == ".eqpot":
        return ASECalculator(potential, dtype=dtype or "float32", device=device)
    if potential.suffix not in _PROGRAMS:
        raise ValueError(f"`potential` must end in .eqpot, .pt, .pth or .pt2, got {potential.name}")
    kind = _PROGRAMS[potential.suffix]
    if not trust:
        raise ValueError(
            f"`potential` {potential} is {kind}, and loading it runs the code in it; "
            "give --trust if you know who wrote it, or use the .eqpot file"
        )
    if dtype is not None:
        raise ValueError(
            f"`dtype` was chosen when the {kind} file was exported; leave --dtype out, got {dtype}"
        )
    if potential.suffix == ".pt2":
        if device != "cpu":
            raise ValueError(
                "`device` was chosen when the compiled file was exported; leave --device out, got "
                f"{device}"
            )
        return ASECalculator.from_compiled(potential, trust=True)
    return ASECalculator.from_torchscript(potential, trust=True, device=device)


def describe(summary: MDSummary, output: Path) -> str:
    """Return the summary of a run in words."""
    lines = [
        f"{summary.ensemble}, {summary.n_atoms} atoms, {summary.n_steps} steps, "
        f"{summary.time_ps:g} ps",
        f"mean temperature  {summary.mean_temperature:.1f} K",
    ]
    if summary.mean_pressure is not None:
        lines.append(f"mean pressure     {summary.mean_pressure:.4g} GPa")
    if summary.drift is not None and summary.drift_error is not None:
        lines.append(
            f"conserved energy  drift {figures(summary.drift)} ± {figures(summary.drift_error, 2)} "
            f"meV/atom/ns, fluctuation {summary.fluctuation:.3g} meV/atom"
        )
    error = summary.energy_error
    if error is not None and error > ENERGY_ERROR_BAR:
        lines.append(
            f"not sound         the conserved energy drifts or fluctuates by "
            f"{figures(100 * error, 2)} % of what the kinetic energy is or does (bar "
            f"{100 * ENERGY_ERROR_BAR:.0f} %): take a shorter --timestep; if that does not help, "
            "train on frames like those where it went wrong"
        )
    lines.append(
        f"speed             {summary.steps_per_second:.3g} steps/s, {summary.ns_per_day:.3g} ns/day"
    )
    lines.append(f"results in        {output}")
    return "\n".join(lines)


def _count_steps(duration: str | None, steps: int | None, timestep: float) -> int:
    if (duration is None) == (steps is None):
        raise ValueError("give the length of the run, either as --time or as --steps")
    if steps is not None:
        return steps
    assert duration is not None
    if not timestep > 0:
        raise ValueError(f"`timestep` must be positive, got {timestep!r}")
    return max(1, round(parse_duration(duration) / timestep))


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file, so that a potential is known by what it is, not by its name."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
