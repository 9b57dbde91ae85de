"""What each stage of the model costs and what the machine could do: the tables of docs/budget.md.

python examples/benchmarks/budget.py           measure, and write the tables
python examples/benchmarks/budget.py --check   fail if the counts in the page are not today's
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import torch
from ase import Atoms
from machine import describe
from systems import R_MAX, SYSTEMS, mean_neighbors

from eqpot import keys
from eqpot.allocation import keep_freed_memory
from eqpot.compilation import compile_potential
from eqpot.cost import ELSEWHERE, FORWARD, Cost, CostCounter
from eqpot.data import Frame, frame_to_graph
from eqpot.graph import Graph
from eqpot.models import PRESETS, build_model, settings_of
from eqpot.models.deployment import deployed
from eqpot.peaks import bandwidth, multiply_add_rate, start_seconds
from eqpot.potential import Potential
from eqpot.verification.budget import (
    DOUBLE_BACKWARD,
    STAGES,
    count_evaluation,
    count_training,
)

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "budget.md"
NAMES: Final = ("molecule", "water", "silicon")
PHASES: Final = (FORWARD, "backward", DOUBLE_BACKWARD)
ROWS: Final = tuple(dict.fromkeys(STAGES.values()))
MARKS: Final = "<!-- {}: written by examples/benchmarks/budget.py -->", "<!-- end of {} -->"
CPU: Final = torch.device("cpu")
_SECONDS: Final = 3.0


@dataclass(frozen=True)
class Case:
    """A preset with fresh weights, which learn or are frozen, and the graph of a system."""

    preset: str
    system: str
    learning: Potential
    frozen: Potential
    graph: Graph
    evaluation: CostCounter
    training: CostCounter

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.graph[keys.POSITIONS])

    def cost(self, stage: str, phase: str) -> Cost:
        """Return the cost of a stage; forward and backward are those of an evaluation."""
        counter = self.training if phase == DOUBLE_BACKWARD else self.evaluation
        return counter.costs.get((stage, phase), Cost())

    def evaluate(self) -> None:
        """Compute energy and forces once."""
        self.frozen(self.graph)

    def train(self) -> None:
        """Compute the gradient of a loss of energy and forces once."""
        outputs = self.learning(self.graph, training=True)
        loss = outputs[keys.ENERGY].square().sum() + outputs[keys.FORCES].square().sum()
        weights = [weight for weight in self.learning.parameters() if weight.requires_grad]
        loss.backward(inputs=weights)

    def count_compiled(self) -> CostCounter:
        """Return the cost of what is compiled, if its operations ran one by one."""
        model = deployed(self.learning.model, compiled=True)
        return count_evaluation(self.frozen.with_model(model), self.graph)


def fresh_potential(preset: str, atoms: list[Atoms]) -> Potential:
    """Return a potential of a preset with fresh weights, for the elements of some structures."""
    numbers = sorted({int(z) for structure in atoms for z in structure.numbers})
    settings = settings_of("gaunt", preset)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(settings, len(numbers), R_MAX, mean_neighbors(atoms[0]))
    return Potential(model, numbers, [0.0] * len(numbers), 1.0, R_MAX).float()


def case(preset: str, system: str) -> Case:
    """Return a case, counted."""
    atoms = SYSTEMS[system]()
    potential = fresh_potential(preset, [atoms])
    frame = Frame(atoms.numbers, atoms.positions, atoms.cell[:], atoms.pbc)
    graph = frame_to_graph(frame, R_MAX)
    frozen = potential.with_model(deployed(potential.model)).requires_grad_(False)
    evaluation, training = count_evaluation(frozen, graph), count_training(potential, graph)
    return Case(preset, system, potential, frozen, graph, evaluation, training)


def counts(cases: list[Case]) -> str:
    """Return the multiply-adds, a table for each preset; the same on each machine."""
    parts = []
    for preset in PRESETS:
        chosen = [c for c in cases if c.preset == preset]
        rows = [["stage", *(f"{c.system}" for c in chosen)]]
        for stage in (*ROWS, "all"):
            cells = [_triple(c, stage) for c in chosen]
            if any(cell != "0 · 0 · 0" for cell in cells):
                rows.append([stage, *cells])
        parts.append(f"`{preset}`:\n\n{_table(rows)}")
    return "\n\n".join(parts)


def _triple(c: Case, stage: str) -> str:
    stages = (*ROWS, ELSEWHERE) if stage == "all" else (stage,)
    values = (sum(c.cost(s, phase).multiply_adds for s in stages) for phase in PHASES)
    return " · ".join(f"{value / c.n_atoms / 1e3:.0f}" for value in values)


def times(cases: list[Case]) -> str:
    """Return traffic, floors and measured times; these are of this machine."""
    rate, bytes_a_second = multiply_add_rate(torch.float32, CPU), bandwidth(CPU)
    start = start_seconds(CPU)
    threads = torch.get_num_threads()
    machine = describe()
    parts = [
        f"{machine['cpu']}, {threads} thread{'s' if threads > 1 else ''}, torch "
        f"{torch.__version__}, commit {machine['commit']}, {machine['date']}, float32. A matrix "
        f"product of 1024 rows reaches {rate / 1e9:.1f} · 10⁹ multiply-adds a second, a copy of "
        f"128 MiB {bytes_a_second / 1e9:.1f} GB/s; an operation with nothing to do takes "
        f"{1e6 * start:.2f} µs."
    ]
    for preset in PRESETS:
        chosen = [c for c in cases if c.preset == preset]
        rows = [["stage", *(f"{c.system}" for c in chosen)]]
        for stage in ROWS:
            cells = []
            for c in chosen:
                cost = c.cost(stage, FORWARD) + c.cost(stage, "backward")
                arithmetic = 1e6 * cost.multiply_adds / rate / c.n_atoms
                traffic = 1e6 * cost.n_bytes / bytes_a_second / c.n_atoms
                cells.append(f"{cost.n_bytes / c.n_atoms / 1e3:.0f} kB, "
                             f"{arithmetic:.1f} · {traffic:.1f}")  # fmt: skip
            if any(not cell.startswith("0 kB") for cell in cells):
                rows.append([stage, *cells])
        parts.append(f"Energy and forces, `{preset}`:\n\n{_table(rows)}")
    rows = [
        [
            *("preset", "system", "task", "arithmetic, ms", "traffic, ms", "operations"),
            *("starts, ms", "measured, ms", "share"),
        ]
    ]
    for preset in PRESETS:
        print(f"{preset}, compiling", file=sys.stderr)
        whole = fresh_potential(preset, [SYSTEMS[system]() for system in NAMES])
        compiled = compile_potential(whole.requires_grad_(False))
        for c in cases:
            if c.preset != preset:
                continue
            for task, counter, step in (
                ("forces", c.evaluation, c.evaluate),
                ("forces, compiled", c.count_compiled(), partial(compiled, c.graph)),
                ("training", c.training, c.train),
            ):
                print(f"{preset}, {c.system}, {task}", file=sys.stderr)
                measured = median_seconds(step)
                total = counter.total()
                floor = total.multiply_adds / rate
                row = [f"`{preset}`", c.system, task, f"{1e3 * floor:.3g}"]
                if "compiled" in task:  # it joins operations
                    row += ["", "", ""]
                else:
                    row += [
                        f"{1e3 * total.n_bytes / bytes_a_second:.3g}",
                        f"{total.n_operations}",
                        f"{1e3 * total.n_operations * start:.3g}",
                    ]
                rows.append([*row, f"{1e3 * measured:.3g}", f"{floor / measured:.0%}"])
    parts.append(f"All stages, measured through the potential:\n\n{_table(rows)}")
    return "\n\n".join(parts)


def median_seconds(step: Callable[[], None]) -> float:
    """Return the median time of a step, over some seconds after a few to warm up."""
    for _ in range(3):
        step()
    seconds: list[float] = []
    while len(seconds) < 5 or sum(seconds) < _SECONDS:
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _table(rows: list[list[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def block(page: str, name: str) -> str:
    """Return what stands between the marks of a name."""
    first, last = (mark.format(name) for mark in MARKS)
    before, _, rest = page.partition(first)
    content, found, _ = rest.partition(last)
    if not before or not found:
        raise ValueError(f"{PAGE}: must have the lines {first!r} and {last!r}")
    return content.strip()


def with_block(page: str, name: str, content: str) -> str:
    """Return the page with other content between the marks of a name."""
    block(page, name)
    first, last = (mark.format(name) for mark in MARKS)
    before, _, rest = page.partition(first)
    return f"{before}{first}\n\n{content}\n\n{last}{rest.partition(last)[2]}"


def check(page: str, cases: list[Case]) -> None:
    """Check that the counts of the page are those of the model as it is.

    Raises
    ------
    ValueError
        If not.
    """
    found = counts(cases)
    if block(page, "counts") != found:
        raise ValueError(
            f"{PAGE.name}: the counts must be those of the model as it is; write them with "
            f"python examples/benchmarks/budget.py. Those of today:\n\n{found}"
        )


def main() -> None:
    """Measure and write, or check."""
    parser = argparse.ArgumentParser(prog="python examples/benchmarks/budget.py")
    parser.add_argument("--check", action="store_true", help="write nothing, measure no time")
    arguments = parser.parse_args()
    keep_freed_memory()
    page = PAGE.read_text(encoding="utf-8")
    cases = [case(preset, system) for preset in PRESETS for system in NAMES]
    if arguments.check:
        try:
            check(page, cases)
        except ValueError as error:
            sys.exit(f"error: {error}")
        return
    page = with_block(page, "counts", counts(cases))
    PAGE.write_text(with_block(page, "times", times(cases)), encoding="utf-8")


if __name__ == "__main__":
    main()
