"""Energy, forces and stress through each program's ASE calculator: time and memory."""

from functools import partial
from typing import Any

from systems import SYSTEMS
from turns import Field, Length, Worker, take_turns


def measure_speed(comparison: Field, systems: list[str], length: Length) -> dict[str, Any]:
    """Return times and memory of all variants by system.

    Parameters
    ----------
    comparison
        Who takes part.
    systems
        Names of :data:`systems.SYSTEMS`.
    length
        How much is measured.
    """
    return {system: _measure(comparison, system, length) for system in systems}


def _measure(comparison: Field, system: str, length: Length) -> dict[str, Any]:
    n_weights: dict[str, int] = {}

    def start(name: str) -> Worker:
        # a model is made in another process than the one whose memory counts
        maker = comparison.worker(name, "prepare", system, system=system)
        maker.close()
        n_weights[name] = maker.facts["n_weights"]
        return comparison.worker(name, "speed", system, system=system)

    workers: dict[str, Worker] = {}
    for name in comparison.variants:
        worker = comparison.attempt(name, system, partial(start, name))
        if worker is not None:
            workers[name] = worker
    facts = {name: worker.facts for name, worker in workers.items()}
    found = take_turns(comparison, workers, system, length)
    for name, values in found["variants"].items():
        values["n_weights"] = n_weights[name]
        values |= {key: facts[name][key] for key in ("has_stress", "threads", "versions")}
    some = next(iter(facts.values()), {"n_atoms": len(SYSTEMS[system]()), "mean_neighbors": None})
    return {"n_atoms": some["n_atoms"], "mean_neighbors": some["mean_neighbors"], **found}
