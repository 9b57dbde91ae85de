"""``eqpot info``: what a potential file holds."""

import json
import textwrap
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from eqpot.compilation import read_compiled_metadata
from eqpot.data.checksums import sha256_of
from eqpot.export import read_torchscript_metadata
from eqpot.files import read_header

_EXPORTS: Final = {
    ".pt": read_torchscript_metadata,
    ".pth": read_torchscript_metadata,
    ".pt2": read_compiled_metadata,
}


def info(
    potential: Annotated[
        Path, typer.Argument(help="A potential (.eqpot), or an export (.pt, .pt2).")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole header as JSON, recipe included.")
    ] = False,
) -> None:
    """Show elements, hyper-parameters, training and errors of a potential; runs no code of a file.

    Of an export: what it was made from, and for what.
    """
    read_metadata = _EXPORTS.get(potential.suffix)
    header = (read_metadata or read_header)(potential)
    if as_json:
        typer.echo(json.dumps(header, indent=1))
        return
    write = summary if read_metadata is None else export_summary
    typer.echo("\n".join(write(potential, header)))


def export_summary(path: Path, metadata: dict[str, Any]) -> list[str]:
    """Return the lines that tell what an export is."""
    kind = "TorchScript program"
    if metadata["format"] == "eqpot-compiled":
        kind = f"compiled for {metadata['device']}, {metadata['processor']}"
    return [
        f"{path}",
        f"  SHA-256     {sha256_of(path)}",
        f"  export      {kind}",
        f"  made from   {metadata['native_sha256'] or 'a potential in memory'} (its identity)",
        f"  elements    {' '.join(metadata['elements'])}",
        f"  radius      {metadata['r_max']} Å",
        *_model_lines(metadata),
        f"  written by  eqpot {metadata['eqpot_version']}, torch {metadata['torch_version']}",
        "  --json prints everything",
    ]


def _model_lines(header: dict[str, Any]) -> list[str]:
    settings = ", ".join(f"{key} {value}" for key, value in header["model"]["settings"].items())
    return textwrap.wrap(
        f"{header['model']['kind']}: {settings}; {header['dtype']}",
        width=100,
        initial_indent="  model       ",
        subsequent_indent=" " * 14,
    )


def summary(potential: Path, header: dict[str, Any]) -> list[str]:
    """Return the lines that tell what a potential is, without its recipe and checksums."""
    pairs = zip(header["elements"], header["reference_energies"], strict=True)
    provenance, errors = header["provenance"], header["errors"]
    repulsion = "nuclear (ZBL)" if header["repulsion"] else "none"
    lines = [
        f"{potential}",
        f"  identity    {header['file_sha256']}",
        f"  elements    {' '.join(header['elements'])}",
        f"  radius      {header['r_max']} Å",
        *_model_lines(header),
        f"  repulsion   {repulsion}",
        f"  E0          {', '.join(f'{symbol} {energy:.6f} eV' for symbol, energy in pairs)}",
        f"  written by  eqpot {header['eqpot_version']}",
    ]
    if "n_steps" in provenance:
        lines.append(
            f"  trained     {provenance['n_steps']} steps, {provenance['n_epochs']:.1f} epochs"
        )
    if "fine_tuning" in provenance:
        base = provenance["fine_tuning"]
        lines.append(f"  started at  {base['potential']} ({base['file_sha256']})")
    lines += [f"  data        {name}" for name in provenance.get("data_sha256", {})]
    rows = [
        (name, label, entry)
        for name, labels in errors.items()
        if isinstance(labels, dict)
        for label, entry in labels.items()
        if isinstance(entry, dict) and "rmse" in entry
    ]
    if rows:
        lines.append("  errors (RMSE, MAE)")
        width = max(len(name) for name, _, _ in rows)
        for name, label, entry in rows:
            numbers = f"{entry['rmse']:>10.4g}{entry['mae']:>10.4g} {entry['unit']}"
            lines.append(f"    {name:<{width}}  {label:<7}{numbers}")
    lines.append("  --json prints everything, the recipe too")
    return lines
