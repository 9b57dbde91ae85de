"""``eqpot bench``: what is derived of a measurement is right, and mistakes are one message."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

import eqpot.calculators.ase
from eqpot.calculators import ASECalculator
from eqpot.cli.bench import advice, heading, table
from eqpot.cli.main import app
from eqpot.cost import Cost
from eqpot.data.neighbors import neighbor_list
from eqpot.files import save_potential
from eqpot.verification.benchmark import Benchmark, Measurement, benchmark, packings
from eqpot.verification.packing import packing
from potentials import random_potential, soft_potential
from test_cli import call
from test_compilation import around

MEASURED = Measurement("some", 100, 20.0, 10, 0.05, 0.1, 0.8, Cost(4_000, 3_000, 2), 64.0)


def made_up(measurement):
    # the model takes 0.04 s; at best 0.004 s of multiply-adds, 0.003 s of bytes, 0.002 s of starts
    return Benchmark({}, "float32", 2.0, 1e6, 1e6, 1e-3, [measurement])


def test_speeds_and_shares_follow_from_the_seconds():
    found = made_up(MEASURED)
    assert MEASURED.rest_share == pytest.approx(0.1)
    assert MEASURED.atoms_per_second == pytest.approx(2000)
    assert MEASURED.ns_per_day(2.0) == pytest.approx(2e-6 * 20 * 86400)
    assert found.floors(MEASURED) == pytest.approx(
        {"arithmetic": 0.1, "traffic": 0.075, "starts": 0.05}
    )
    entry = found.as_dict()["measurements"][0]
    assert entry["ns_per_day"] == pytest.approx(2e-6 * 20 * 86400)
    assert entry["cost"]["multiply_adds"] == 4000


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        ({"cost": Cost(36_000, 20_000, 2)}, "arithmetic"),
        ({"cost": Cost(4_000, 20_000, 2)}, "traffic"),
        ({"cost": Cost(4_000, 3_000, 30)}, "overhead"),
        ({"list_share": 0.6, "model_share": 0.3}, "neighbour list"),
        ({"list_share": 0.1, "model_share": 0.3}, "calculator"),
    ],
)
def test_the_limit_is_what_takes_most_of_the_time(change, limit):
    measurement = Measurement(**{**MEASURED.__dict__, **change})
    found = made_up(measurement)
    assert found.limit(measurement) == limit
    for device in ("cpu", "cuda:0"):
        (line,) = advice(replace(found, machine={"device": device}), Path("runs/p.eqpot"))
        assert line.startswith(f"limited by {limit}? ")
        command = "eqpot export runs/p.eqpot runs/p.pt2"
        assert (command in line) == (device == "cpu" and limit in {"traffic", "overhead"})


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        ({"cost": Cost(36_000)}, "arithmetic"),
        ({"cost": Cost(4_000)}, "overhead"),
        ({"list_share": 0.6, "model_share": 0.3}, "neighbour list"),
    ],
)
def test_of_compiled_code_arithmetic_alone_is_known(change, limit):
    measurement = Measurement(**{**MEASURED.__dict__, **change})
    found = replace(made_up(measurement), compiled=True)
    assert list(found.floors(measurement)) == ["arithmetic"]
    assert found.limit(measurement) == limit
    for device, dtype in itertools.product(("cpu", "cuda:0"), ("float32", "float64")):
        (line,) = advice(replace(found, machine={"device": device}, dtype=dtype), Path("p.eqpot"))
        assert line.startswith(f"limited by {limit}? ") and "eqpot export" not in line
        assert ("threads" in line) == (device == "cpu" and limit != "neighbour list")
    machine = {"device": "cpu", "processor": "one", "n_threads": 1, "torch": "2"}
    found = replace(found, machine=machine)
    assert heading(found).startswith("float32, compiled, cpu")
    assert table(found)[1].removesuffix(limit).split()[-2:] == ["–", "–"]


def test_compiled_code_is_measured_by_its_own_way(monkeypatch):
    potential, made = soft_potential(), []
    plain = benchmark(potential, {"silicon": bulk("Si", cubic=True)}, 1.0, 0.01)

    def compiled(given):
        made.append(around(given))
        return made[-1]

    monkeypatch.setattr(eqpot.calculators.ase, "compile_potential", compiled)
    structures = {"silicon": bulk("Si", cubic=True), "water": molecule("H2O")}
    found = benchmark(potential, structures, 1.0, 0.01, compiled=True)
    assert found.compiled and len(made) == 1  # once for all structures
    for measured in found.measurements:
        assert measured.list_share > 0 and measured.model_share > 0 and measured.rest_share > 0
    # products of degree 2 by the coefficients that are not zero: fewer than on points, not none
    costs = [b.measurements[0].cost.multiply_adds for b in (plain, found)]
    assert 0.5 * costs[0] < costs[1] < costs[0]


@pytest.mark.parametrize("mean_neighbors", [0.5, 12.0, 70.0])
def test_a_packing_has_the_neighbours_and_elements_asked_for(mean_neighbors):
    atoms = packing([1, 8, 14], 6, mean_neighbors, 4.0)
    edges, _ = neighbor_list(atoms.positions, atoms.cell[:], atoms.pbc, 4.0)
    assert edges.shape[1] / 216 == pytest.approx(mean_neighbors, abs=0.02)
    assert np.bincount(atoms.numbers)[[1, 8, 14]].tolist() == [72, 72, 72]
    assert np.isfinite(atoms.get_all_distances(mic=True)).all()


def test_a_potential_computes_its_packings():
    for atoms in packings(soft_potential()).values():
        atoms.calc = ASECalculator(soft_potential())
        assert np.isfinite(atoms.get_forces()).all()
    assert [len(atoms) for atoms in packings(soft_potential()).values()] == [27, 216, 1000]


def test_measurements_hold_together_and_leave_the_structure_alone():
    atoms = bulk("Si", cubic=True)
    before = atoms.positions.copy()
    found = benchmark(random_potential(), {"silicon": atoms, "h2": molecule("H2")}, 1.0, 0.01)
    assert np.array_equal(atoms.positions, before) and atoms.calc is None
    silicon, h2 = found.measurements
    # 4 at 2.35 Å and 12 at 3.84 Å, give or take those that tremble across 4 Å
    assert silicon.mean_neighbors == pytest.approx(16, abs=1.5) and h2.mean_neighbors == 1.0
    for measured in (silicon, h2):
        assert measured.n_steps >= 5 and measured.seconds > 0 and measured.peak_memory_mib > 0
        assert measured.list_share > 0 and measured.model_share > 0 and measured.rest_share > 0
    assert silicon.cost.multiply_adds > 4 * h2.cost.multiply_adds
    assert min(found.multiply_add_rate, found.bandwidth, found.start_seconds) > 0


@pytest.fixture
def native(tmp_path):
    save_potential(tmp_path / "p.eqpot", soft_potential())
    return tmp_path / "p.eqpot"


def test_the_command_prints_a_table_and_writes_json(native, tmp_path, monkeypatch, capsys):
    bulk("Si", cubic=True).write(tmp_path / "si.xyz")
    words = ["bench", native, tmp_path / "si.xyz", "--seconds", 0.01, "--timestep", 0.5]
    assert call(monkeypatch, *words, "--json", tmp_path / "b.json", command=app) == 0
    lines = capsys.readouterr().out.splitlines()
    document = json.loads((tmp_path / "b.json").read_text())
    (row,) = [line for line in lines if line.startswith(str(tmp_path / "si.xyz"))]
    assert row.split()[1] == "8" and document["measurements"][0]["n_atoms"] == 8
    limit = document["measurements"][0]["limit"]
    assert row.endswith(limit) and lines[-1].startswith(f"limited by {limit}? ")
    assert document["timestep"] == 0.5 and document["dtype"] == "float32"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("absent.eqpot",), "no such file"),
        (("p.eqpot", "absent.xyz"), "absent.xyz"),
        (("p.eqpot", "gold.xyz"), "gold.xyz: atom 0 is Au (Z = 79)"),
        (("p.eqpot", "si.xyz", "--timestep", "0"), "`timestep` must be above zero"),
        (("p.eqpot", "si.xyz", "--seconds", "-1"), "`seconds` must be above zero"),
        (("p.eqpot", "si.xyz", "--device", "abacus"), "`device` must be such as"),
        (("p.eqpot", "si.xyz", "--device", "cuda:99"), "PyTorch sees"),
    ],
)
def test_mistakes_are_one_message(words, message, native, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bulk("Si").write("si.xyz")
    bulk("Au").write("gold.xyz")
    assert call(monkeypatch, "bench", *words, "--json", "out.json") == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "out.json").exists()


def test_an_empty_structure_is_told():
    with pytest.raises(ValueError, match="nothing: must have atoms"):
        benchmark(soft_potential(), {"nothing": Atoms()})
