"""The tables of ``RESULTS.md``, from the JSON document of a run."""

from typing import Any


def as_markdown(document: dict[str, Any]) -> str:
    """Return all that the document holds."""
    parts = []
    for name, table in (("speed", speed), ("training", training), ("accuracy", accuracy)):
        if name in document:
            parts.append(table(document[name]))
    return "\n\n".join(parts) + "\n"


def speed(section: dict[str, Any]) -> str:
    """Return times and memory, a table for each system."""
    parts = [f"### Speed\n\n{_origin(section)}"]
    for system, found in section["systems"].items():
        rows = [["program", "ms a call", "ratio", "memory, MiB", "weights"]]
        for name, values in found["variants"].items():
            mark = "" if values["has_stress"] or system == "molecule" else " (no stress)"
            rows.append(
                [
                    name + mark,
                    _spread(values["milliseconds"]),
                    _spread(values.get("ratio")),
                    f"{values['memory_mib']:.0f}",
                    str(values["n_weights"]),
                ]
            )
        head = f"{system}: {found['n_atoms']} atoms, {found['n_rounds']} rounds of "
        if len(parts) == 1:
            parts.append("\n".join(_options(*pair) for pair in found["variants"].items()))
        parts.append(f"{head}{found['calls_per_round']} calls\n\n{_table(rows)}")
    return "\n\n".join([*parts, *_failures(section)])


def training(section: dict[str, Any]) -> str:
    """Return times of steps and structures in a second."""
    rows = [["program", "ms a step", "ratio", "structures/s", "memory, MiB"]]
    for name, values in section["variants"].items():
        rows.append(
            [
                name,
                _spread(values["milliseconds"]),
                _spread(values.get("ratio")),
                f"{values['structures_per_second']:.1f}",
                f"{values['memory_mib']:.0f}",
            ]
        )
    head = f"{section['frames']}, {section['batch_size']} structures a step"
    return "\n\n".join(
        [f"### Training\n\n{_origin(section)}", head, _table(rows), *_failures(section)]
    )


def accuracy(section: dict[str, Any]) -> str:
    """Return the errors after the budget."""
    variants = section["variants"]
    tests = list(dict.fromkeys(test for values in variants.values() for test in values["errors"]))
    rows = [["program", "min", "epochs", *(f"{t}: meV/atom, meV/Å" for t in tests)]]
    for name, values in variants.items():
        cells = [values["errors"].get(test) for test in tests]
        rows.append(
            [
                name,
                f"{values['training_seconds'] / 60:.1f}",
                f"{values['n_epochs']:.0f}",
                *(f"{cell['energy']:.2f}, {cell['forces']:.1f}" if cell else "–" for cell in cells),
            ]
        )
    return "\n\n".join([f"### Accuracy\n\n{_origin(section)}", _table(rows), *_failures(section)])


def _origin(section: dict[str, Any]) -> str:
    machine = section["machine"]
    load = machine["load_before"]
    lines = [
        f"- {machine['date']}, eqpot at commit {machine['commit']}, {section['threads']} thread(s) "
        "unless a variant has others",
        f"- {machine['cpu']}, {machine['cores']} cores"
        + ("" if load is None else f", load before {load:.2f}"),
    ]
    for name, versions in section["versions"].items():
        numbers = ", ".join(f"{package} {number}" for package, number in versions.items())
        lines.append(f"- {name}: {numbers}")
    return "\n".join(lines)


def _options(name: str, values: dict[str, Any]) -> str:
    n_threads = values["threads"]
    return f"- {name}: {values['options']}, {n_threads} thread{'s' if n_threads > 1 else ''}"


def _failures(section: dict[str, Any]) -> list[str]:
    lines = [f"- {place}: {reason}" for place, reason in section["failures"].items()]
    return ["Failed:\n\n" + "\n".join(lines)] if lines else []


def _spread(values: dict[str, float] | None) -> str:
    if values is None:
        return "–"
    return f"{values['median']:.3g} ({values['min']:.3g} to {values['max']:.3g})"


def _table(rows: list[list[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
