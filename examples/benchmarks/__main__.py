"""Measure eqpot beside other programs: speed, memory, training, accuracy. See README.md.

python examples/benchmarks speed
python examples/benchmarks training --train train_300K.xyz
python examples/benchmarks accuracy --train train_300K.xyz --test test_MD_300K.xyz
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from accuracy import measure_accuracy
from machine import describe
from peers import ENVIRONMENTS, VARIANTS, Variant, eqpot_variant
from plots import plot
from speed import measure_speed
from systems import SYSTEMS
from tables import as_markdown
from turns import Field, Length

from training import measure_training

BUILD: Final = Path(__file__).resolve().parents[2] / "build" / "benchmarks"
"""Where environments and models stand unless told otherwise."""
_PEERS: Final = ["nequip-l1", "allegro-l2", "tensornet-128"]
DEFAULTS: Final = {
    "speed": ["eqpot-medium", "eqpot-small", "mace-128", *_PEERS],
    "training": ["eqpot-medium", "eqpot-small", "mace-32", *_PEERS],
    "accuracy": ["eqpot-medium", "mace-32", *_PEERS],
}
"""Who takes part unless told otherwise; the first is what ratios are taken to."""


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python examples/benchmarks")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in DEFAULTS:
        command = commands.add_parser(name)
        command.add_argument("--programs", nargs="+", default=DEFAULTS[name], metavar="NAME")
        command.add_argument(
            "--variant",
            action="append",
            default=[],
            type=eqpot_variant,
            metavar="NAME=JSON",
            help='a further one of eqpot, such as NAME={"preset": "medium", "calculator": {...}, '
            '"training": {...}, "threads": 2}',
        )
        command.add_argument(
            "--eqpot-options",
            type=json.loads,
            default={},
            metavar="JSON",
            help="arguments of eqpot's calculator, for all its variants",
        )
        command.add_argument("--threads", type=int, default=1, help="of each program (1)")
        command.add_argument(
            "--folder", type=Path, default=BUILD, help="of environments (build/benchmarks)"
        )
        command.add_argument(
            "--python",
            action="append",
            default=[],
            metavar="PROGRAM=PATH",
            help=f"interpreter to take for one of {', '.join(ENVIRONMENTS)}; nothing is installed",
        )
        command.add_argument("--json", type=Path, metavar="FILE", help="merge the numbers into it")
        command.add_argument(
            "--png", type=Path, metavar="FILE", help="draw all numbers of the JSON"
        )
        if name == "accuracy":
            command.add_argument("--minutes", type=float, default=10.0, help="of training (10)")
            command.add_argument("--test", type=Path, nargs="+", required=True, metavar="FILE")
        else:
            command.add_argument("--rounds", type=int, default=7, help="turns of a program (7)")
            command.add_argument("--warmup", type=int, default=6, help="calls left out (6)")
            command.add_argument(
                "--seconds", type=float, default=60.0, help="for the turns of a system (60)"
            )
        if name == "speed":
            command.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
        else:
            command.add_argument("--train", type=Path, required=True, metavar="FILE")
    arguments = parser.parse_args()
    known = VARIANTS | dict(arguments.variant)
    unknown = [name for name in arguments.programs if name not in known]
    if unknown:
        parser.error(f"no program {unknown}; there are {', '.join(known)}")
    names = dict.fromkeys([*arguments.programs, *dict(arguments.variant)])
    arguments.variants = {
        name: with_options(known[name], arguments.eqpot_options) for name in names
    }
    arguments.pythons = {
        program: Path(path)
        for program, _, path in (text.partition("=") for text in arguments.python)
    }
    return arguments


def with_options(variant: Variant, calculator: dict[str, Any]) -> Variant:
    """Return a variant whose calculator has these options, unless it has its own."""
    if variant.program != "eqpot":
        return variant
    own = variant.options.get("calculator", {})
    return replace(variant, options=variant.options | {"calculator": calculator | own})


def section_of(command: str, comparison: Field, found: dict[str, Any]) -> dict[str, Any]:
    """Return what was found with its origin; versions stand for each program."""
    groups = found["systems"].values() if command == "speed" else [found]
    versions: dict[str, dict[str, str]] = {}
    for group in groups:
        for name, values in group["variants"].items():
            versions[comparison.variants[name].program] = values["versions"]
    return {"versions": versions, "failures": comparison.failures, **found}


def measure(arguments: argparse.Namespace, document: dict[str, Any]) -> None:
    """Measure what the command line asks for and put it into the document."""
    command = arguments.command
    machine = describe()
    if machine["load_before"] is not None and machine["load_before"] > 0.5:
        print(f"warning: the machine is busy, load {machine['load_before']:.2f}", file=sys.stderr)
    comparison = Field(arguments.variants, arguments.folder, arguments.pythons, arguments.threads)
    origin = {"machine": machine, "threads": arguments.threads}
    if command == "accuracy":
        section = document.setdefault(command, {"versions": {}, "failures": {}, "variants": {}})
        section |= origin
        for name in comparison.variants:
            found = measure_accuracy(
                comparison, name, arguments.train, arguments.test, 60 * arguments.minutes
            )
            section["failures"].pop(f"{name}, accuracy", None)
            if found is not None:
                section["versions"][comparison.variants[name].program] = found.pop("versions")
                section["variants"][name] = found
            section["failures"] |= comparison.failures
            save(arguments, document)  # each takes long
        return
    length = Length(arguments.rounds, arguments.warmup, arguments.seconds)
    if command == "training":
        found = measure_training(comparison, arguments.train, length)
        document[command] = origin | section_of(command, comparison, found)
        return
    systems: dict[str, Any] = {}
    for system in arguments.systems:
        systems |= measure_speed(comparison, [system], length)
        document[command] = origin | section_of(command, comparison, {"systems": systems})
        save(arguments, document)


def save(arguments: argparse.Namespace, document: dict[str, Any]) -> None:
    """Write the document and its picture."""
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if arguments.png is not None:
        plot(document, arguments.png)


def main() -> None:
    """Measure, write and print."""
    arguments = parse_arguments()
    document: dict[str, Any] = {}
    if arguments.json is not None and arguments.json.exists():
        document = json.loads(arguments.json.read_text(encoding="utf-8"))
    measure(arguments, document)
    save(arguments, document)
    print(as_markdown({arguments.command: document[arguments.command]}), end="")


if __name__ == "__main__":
    main()
