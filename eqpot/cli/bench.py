"""``eqpot bench``: what a potential reaches on this machine."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

from eqpot.cli.export import COMPILING
from eqpot.cli.md import read_structure
from eqpot.durable import check_place, write_durably
from eqpot.files import load_potential
from eqpot.verification.benchmark import Benchmark, benchmark


def bench(
    potential: Annotated[Path, typer.Argument(help="A potential (.eqpot).")],
    structure: Annotated[
        str | None,
        typer.Argument(
            help="Structure file of any format ASE reads; its last frame, or another one as in "
            "file.extxyz@0. Without it, packings of the potential's elements in three sizes."
        ),
    ] = None,
    timestep: Annotated[float, typer.Option(help="fs, for ns/day.")] = 1.0,
    dtype: Annotated[
        Literal["float32", "float64"], typer.Option(help="Precision of the model.")
    ] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")] = "cpu",
    seconds: Annotated[float, typer.Option(help="Time for each structure.")] = 3.0,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compiled",
            help="Compile the potential first, in one to three minutes, and measure that.",
        ),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all numbers to this file.")
    ] = None,
) -> None:
    """Measure speed and memory of a potential through ASE, and tell what limits them."""
    if json_file is not None:
        check_place(json_file)
    structures = None if structure is None else {structure: read_structure(structure)}
    loaded = load_potential(potential, dtype=dtype, device=_device(device))
    if compiled:
        typer.echo(COMPILING, err=True)
    found = benchmark(loaded, structures, timestep, seconds, compiled)
    lines = [f"{potential}: {heading(found)}", "", *table(found), "", *_LEGEND]
    typer.echo("\n".join([*lines, "", *advice(found, potential)]))
    if json_file is not None:
        write_durably(json_file, (json.dumps(found.as_dict(), indent=1) + "\n").encode())


_LEGEND = (
    "list, model, rest: parts of the time: neighbour list, energies and forces, ASE around them",
    "arithmetic, traffic, starts: parts of the model's time that its multiply-adds, bytes and",
    "operations take at best, unknown (–) of compiled code; overhead is what it takes beyond",
    "memory: the largest so far, of the process or of the tensors on a GPU",
)


def heading(found: Benchmark) -> str:
    """Return in two lines where the numbers come from."""
    machine = found.machine
    name = machine.get("gpu", machine["processor"])
    threads = f"{machine['n_threads']} thread{'s' if machine['n_threads'] > 1 else ''}"
    kind = f"{found.dtype}, compiled" if found.compiled else found.dtype
    return (
        f"{kind}, {machine['device']} ({name}), {threads}, torch {machine['torch']}\n"
        f"at best {found.multiply_add_rate / 1e9:.3g} · 10⁹ multiply-adds/s, "
        f"{found.bandwidth / 1e9:.3g} GB/s, {1e6 * found.start_seconds:.2g} µs for an operation"
    )


def table(found: Benchmark) -> list[str]:
    """Return the lines of the table, a row for each structure."""
    rows = [
        [
            *("structure", "atoms", "neighbours", "ms/step", "atoms/s", "ns/day", "memory/MiB"),
            *("list", "model", "rest", "arithmetic", "traffic", "starts", "limited by"),
        ]
    ]
    for measured in found.measurements:
        memory = measured.peak_memory_mib
        floors = found.floors(measured)
        parts = measured.list_share, measured.model_share, measured.rest_share
        rows.append(
            [
                measured.source,
                f"{measured.n_atoms}",
                f"{measured.mean_neighbors:.1f}",
                f"{1e3 * measured.seconds:.3g}",
                f"{measured.atoms_per_second:.0f}",
                f"{measured.ns_per_day(found.timestep):.3g}",
                "unknown" if memory is None else f"{memory:.0f}",
                *(f"{part:.0%}" for part in parts),
                *(
                    f"{floors[kind]:.0%}" if kind in floors else "–"
                    for kind in ("arithmetic", "traffic", "starts")
                ),
                found.limit(measured),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *numbers, last = (c.rjust(w) for c, w in zip(row, widths, strict=True))
        lines.append("  ".join([row[0].ljust(len(first)), *numbers, last.strip()]))
    return lines


def advice(found: Benchmark, potential: Path) -> list[str]:
    """Return a line for each limit in the table: what helps."""
    limits = dict.fromkeys(found.limit(measured) for measured in found.measurements)
    files = shlex.join([str(potential), str(potential.with_suffix(".pt2"))])
    compiled = (
        f"machine code, `eqpot export {files}`, which ASE takes by `ASECalculator.from_compiled` "
        "(--compiled measures it)"
    )
    more = "more threads (OMP_NUM_THREADS), a GPU, or a smaller preset"
    if found.compiled:
        if found.machine["device"] != "cpu":
            more = "a smaller preset"
        helps = {
            "arithmetic": more,
            "overhead": f"{more}; or a machine with nothing else to do",
        }
    elif found.machine["device"] == "cpu":
        helps = {
            "arithmetic": more,
            "traffic": f"{compiled}; more threads (OMP_NUM_THREADS), or a GPU",
            "overhead": f"{compiled}; larger structures, or a machine with nothing else to do",
        }
    else:
        helps = {
            "arithmetic": "a smaller preset",
            "traffic": "a smaller preset",
            "overhead": "larger structures, or several at once",
        }
    if found.dtype == "float64":
        wide = helps.keys() & {"arithmetic", "traffic"}
        helps |= {limit: f"float32; {helps[limit]}" for limit in wide}
    helps["neighbour list"] = "a larger `skin` of the calculator"
    helps["calculator"] = "an engine in place of ASE"
    return [f"limited by {limit}? {helps[limit]}" for limit in limits]


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"`device` must be such as cpu, cuda or cuda:1, got {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"`device` {name!r} is not there: PyTorch sees {torch.cuda.device_count()} GPUs"
        )
    return device
