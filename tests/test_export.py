"""Law 18: the exported program and the potential agree; law 41: none is loaded unasked."""

import hashlib
import warnings
import zipfile

import pytest
import torch
from ase import Atoms

import eqpot.export
from eqpot import keys
from eqpot.compilation import export_compiled
from eqpot.data import Frame, frame_to_graph
from eqpot.export import export_torchscript, load_torchscript
from eqpot.files import load_potential, save_potential
from eqpot.graph import batch_graphs
from eqpot.program import OUTPUTS
from potentials import random_potential, soft_potential
from strategies import ordinary_set


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "random.eqpot"
    save_potential(path, soft_potential(torch.float32))
    return path


def graphs(r_max):
    made = [
        frame_to_graph(Frame(atoms.numbers, atoms.positions, atoms.cell[:], atoms.pbc), r_max)
        for atoms in ordinary_set().values()
        if set(atoms.numbers) <= {1, 6, 8, 14}
    ]
    return [*made, batch_graphs(made[:3]), batch_graphs(made)]


def call(program, graph):
    names = ("positions", "cell", "atomic_numbers", "edge_index", "edge_shifts", "batch")
    return program(*[graph[name] for name in names])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_program_agrees_on_changing_sizes(native, tmp_path, dtype, tolerance):
    # float32: the compiled program fuses operations, which moves virials by up to 4e-6 eV
    export_torchscript(native, tmp_path / "p.pt", dtype)
    program, _ = load_torchscript(tmp_path / "p.pt", trust=True)
    potential = load_potential(native, dtype=dtype)
    for graph in graphs(potential.r_max):
        expected = potential(graph)
        for _ in range(3):  # the executor compiles anew at the second and third call
            for name, found in zip(OUTPUTS, call(program, graph), strict=True):
                assert found.dtype == torch.float64
                scale = max(1.0, expected[name].abs().max().item())
                assert (found - expected[name]).abs().max().item() <= tolerance * scale, name


@pytest.mark.parametrize(
    "changes",
    [
        {"l_max": 0, "l_hidden": 0, "n_layers": 1, "correlation": 1},
        {"l_hidden": 0, "n_element_channels": 3, "n_senders": 1},
        {"l_hidden": 2, "l_along": 1, "n_senders": 1, "final_gate": False},
    ],
)
def test_extreme_settings_go_through_files_and_programs(changes, tmp_path):
    potential = random_potential(**changes)
    save_potential(tmp_path / "p.eqpot", potential)
    loaded = load_potential(tmp_path / "p.eqpot", "float64")
    assert loaded.model.settings == potential.model.settings
    export_torchscript(tmp_path / "p.eqpot", tmp_path / "p.pt", "float64")
    program, _ = load_torchscript(tmp_path / "p.pt", trust=True)
    for graph in graphs(potential.r_max):
        expected, again = potential(graph), loaded(graph)
        for name, found in zip(OUTPUTS, call(program, graph), strict=True):
            scale = max(1.0, expected[name].abs().max().item())
            assert torch.equal(again[name], expected[name]), name
            assert (found - expected[name]).abs().max().item() <= 1e-12 * scale, name


def test_reference_energies_stay_exact(native, tmp_path):
    # a list of floats made into a tensor by TorchScript is rounded to float32
    export_torchscript(native, tmp_path / "p.pt", "float32")
    program, _ = load_torchscript(tmp_path / "p.pt", trust=True)
    atom = Frame([14], [[0.0, 0.0, 0.0]])
    energy = call(program, frame_to_graph(atom, 4.0))[0]
    # float32 would give -7881.1001; the model's share for a lone atom is rounding
    assert energy.item() == pytest.approx(-7881.1, rel=0, abs=1e-6)


def test_metadata(native, tmp_path):
    returned = export_torchscript(native, tmp_path / "p.pt", "float32")
    _, metadata = load_torchscript(tmp_path / "p.pt", trust=True)
    assert metadata["elements"] == ["H", "C", "O", "Si"]
    assert (metadata["r_max"], metadata["dtype"], metadata["n_layers"]) == (4.0, "float32", 2)
    assert metadata["native_sha256"] == returned["native_sha256"]
    assert len(metadata["native_sha256"]) == 64
    assert metadata["outputs"] == list(OUTPUTS)


def test_export_is_reproducible(native, tmp_path):
    for name in ("one.pt", "two.pt"):
        export_torchscript(native, tmp_path / name, "float64")
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["one.pt", "two.pt"]


def test_no_warning_and_no_changed_filter(native, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        export_torchscript(native, tmp_path / "p.pt", "float32")
        load_torchscript(tmp_path / "p.pt", trust=True)
        assert warnings.filters == before


def test_a_program_that_differs_is_not_written(native, tmp_path, monkeypatch):
    load = eqpot.export._load

    def spoiled(data, device=None):
        program = load(data, device)
        return lambda *inputs: tuple(1.001 * result for result in program(*inputs))

    monkeypatch.setattr(eqpot.export, "_load", spoiled)
    with pytest.raises(RuntimeError, match="differs from the potential"):
        export_torchscript(native, tmp_path / "p.pt", "float64")
    assert list(tmp_path.iterdir()) == []


def steep_potential(factor):
    """Return one of four layers, whose energies grow with a high power of the density."""
    potential = random_potential(torch.float32, n_layers=4, final_gate=False)
    for interaction in potential.model.later:
        for step in interaction.layer.steps:
            step.mix_right.weight.mul_(factor)
    return potential


def test_energies_that_overflow_in_dense_matter_do_not_hinder_the_export(tmp_path):
    metadata = export_torchscript(steep_potential(2.5), tmp_path / "p.pt", "float32")
    assert metadata["largest_difference"] < 1e-4
    with pytest.raises(RuntimeError, match=r"overflows torch\.float32 for 6 atoms"):
        export_torchscript(steep_potential(1e9), tmp_path / "q.pt", "float32")
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.pt"]


def test_potential_in_memory_keeps_its_type(tmp_path):
    with pytest.raises(ValueError, match="`dtype`"):
        export_torchscript(soft_potential(), tmp_path / "p.pt", "float32")
    assert list(tmp_path.iterdir()) == []
    assert export_torchscript(soft_potential(), tmp_path / "p.pt", "float64")["dtype"] == "float64"


def test_nothing_is_loaded_unasked(native, tmp_path, monkeypatch):
    path = tmp_path / "p.pt"
    export_torchscript(native, path, "float32")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    load_torchscript(path, sha256=sha256)

    def never(*_):
        raise AssertionError("was loaded")

    monkeypatch.setattr(eqpot.export, "_load", never)
    with pytest.raises(ValueError, match="a program that runs"):
        load_torchscript(path)
    with pytest.raises(ValueError, match="but the file has"):
        load_torchscript(path, sha256="0" * 64)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "p.pt"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="no TorchScript file"):
        load_torchscript(path, trust=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ValueError, match=r"p\.pt"):
        load_torchscript(path, trust=True)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_torchscript(tmp_path / "absent.pt", trust=True)


@pytest.mark.parametrize("export", [export_torchscript, export_compiled])
def test_a_place_that_cannot_be_written_is_told_before_the_work(export, native, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        export(native, tmp_path / "absent" / "p", "float32")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        export(native, tmp_path, "float32")


def test_positions_of_the_caller_are_not_touched(native, tmp_path):
    export_torchscript(native, tmp_path / "p.pt", "float64")
    program, _ = load_torchscript(tmp_path / "p.pt", trust=True)
    water = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    graph = frame_to_graph(Frame(water.numbers, water.positions), 4.0)
    before = {name: tensor.clone() for name, tensor in graph.items()}
    call(program, graph)
    assert torch.equal(before[keys.POSITIONS], graph[keys.POSITIONS])
    assert not graph[keys.POSITIONS].requires_grad
