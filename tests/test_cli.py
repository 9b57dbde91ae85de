"""Commands: frozen options; bad input gives one message, an exit code and no half-written file."""

import hashlib
import json
import zipfile

import numpy as np
import pytest
import torch
import typer
from ase.build import bulk
from typer.main import get_command

import eqpot
from eqpot.cli.errors import run_app
from eqpot.cli.main import app
from eqpot.cli.train import app as train_app
from eqpot.files import read_header, save_potential
from potentials import soft_potential
from reading_options import READING

OPTIONS = {
    "info": {"potential", "as_json"},
    "export": {"potential", "output", "dtype"},
    "evaluate": {"potential", "data", "dtype", "json_file", "picture"} | READING,
    "md": {
        "barostat_time",
        "checkpoint_interval",
        "device",
        "dtype",
        "duration",
        "ensemble",
        "friction",
        "interval",
        "keep_momenta",
        "log_interval",
        "output",
        "potential",
        "pressure",
        "seed",
        "steps",
        "structure",
        "temperature",
        "timestep",
        "trust",
    },
    "bench": {
        *("potential", "structure", "timestep", "dtype", "device", "seconds", "compiled"),
        "json_file",
    },
    "report": {"folder"},
}


@pytest.fixture
def native(tmp_path):
    save_potential(tmp_path / "p.eqpot", soft_potential())
    return tmp_path / "p.eqpot"


def call(monkeypatch, *arguments, command=app):
    monkeypatch.setattr("sys.argv", ["eqpot", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run_app(command)
    return ended.value.code or 0


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_frozen(name):
    command = get_command(app).commands[name]
    assert {parameter.name for parameter in command.params} - {"help"} == OPTIONS[name]
    assert command.help and all(p.help for p in command.params if p.name != "help")


def test_options_of_training_are_frozen():
    assert {p.name for p in get_command(train_app).params} == {"recipe", "defaults", "version"}


def test_there_is_no_completion_option():
    assert isinstance(app, typer.Typer)
    assert [p.name for p in get_command(app).params if p.name != "help"] == ["version"]


@pytest.mark.parametrize("command", [app, train_app])
def test_programs_tell_their_version(command, monkeypatch, capsys):
    assert call(monkeypatch, "--version", command=command) == 0
    assert capsys.readouterr().out.startswith(f"eqpot {eqpot.__version__}, torch ")


def test_info_tells_what_a_potential_is_on_one_screen(native, monkeypatch, capsys):
    assert call(monkeypatch, "info", native) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 30 and max(len(line) for line in lines) < 140
    header = read_header(native)
    assert f"  elements    {' '.join(header['elements'])}" in lines
    assert any(header["file_sha256"] in line for line in lines)


def test_info_as_json_is_the_header(native, monkeypatch, capsys):
    assert call(monkeypatch, "info", native, "--json") == 0
    assert json.loads(capsys.readouterr().out) == read_header(native)


def test_an_export_tells_what_it_is_without_being_loaded(native, tmp_path, monkeypatch, capsys):
    export = tmp_path / "p.pt"
    assert call(monkeypatch, "export", native, export, "--dtype", "float64") == 0
    sha256 = hashlib.sha256(export.read_bytes()).hexdigest()
    assert sha256 in capsys.readouterr().out
    monkeypatch.setattr(torch.jit, "load", None)
    assert call(monkeypatch, "info", export) == 0
    told = capsys.readouterr().out
    header = read_header(native)
    for expected in (sha256, header["file_sha256"], " ".join(header["elements"]), "float64"):
        assert expected in told
    assert call(monkeypatch, "info", export, "--json") == 0
    assert json.loads(capsys.readouterr().out)["native_sha256"] == header["file_sha256"]
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a", "b")
    for content in (b"no archive", other.read_bytes()):
        export.write_bytes(content)
        assert call(monkeypatch, "info", export) == 1
        assert "p.pt: is no TorchScript file that eqpot exported" in capsys.readouterr().err


def test_evaluate_a_file_without_labels_is_one_message(native, tmp_path, monkeypatch, capsys):
    bulk("Si").write(tmp_path / "bare.xyz")
    code = call(monkeypatch, "evaluate", native, tmp_path / "bare.xyz", "--json", tmp_path / "e")
    error = capsys.readouterr().err
    assert code == 1 and "bare.xyz" in error and "Traceback" not in error
    assert not (tmp_path / "e").exists()


def test_evaluate_reads_the_labels_and_units_it_is_told(native, tmp_path, monkeypatch, capsys):
    atoms = bulk("Si", "diamond", 5.5, cubic=True)
    atoms.rattle(0.1, seed=0)
    energy, forces = -40.0, np.arange(24.0).reshape(8, 3) - 11.5
    found = []
    for keys, scale in ((("energy", "forces"), 1.0), (("E_dft", "F_dft"), 27.211386245988)):
        atoms.info, atoms.arrays = {keys[0]: energy / scale}, {**atoms.arrays}
        atoms.set_array(keys[1], forces / scale)
        path = tmp_path / f"{keys[0]}.extxyz"
        atoms.write(path)
        del atoms.arrays[keys[1]]
        options = ("--energy-key", keys[0], "--forces-key", keys[1])
        options += ("--units", "energy=Hartree,length=Angstrom") if scale > 1 else ()
        result = tmp_path / f"{keys[0]}.json"
        assert call(monkeypatch, "evaluate", native, path, "--json", result, *options) == 0
        found.append(json.loads(result.read_text()))
    assert "energy from `E_dft`" in capsys.readouterr().out
    for label in ("energy", "forces"):
        assert found[1][label]["rmse"] == pytest.approx(found[0][label]["rmse"], rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("info", "absent.eqpot"), 1, "no such file"),
        (("info", "foreign.eqpot"), 1, "not a potential file"),
        (("export", "foreign.eqpot", "out.pt"), 1, "not a potential file"),
        (("export", "foreign.eqpot", "out.pt2"), 1, "not a potential file"),
        (("export", "foreign.eqpot", "out.onnx"), 1, "must end in .pt (TorchScript) or .pt2"),
        # told before all else, which may take hours
        (("bench", "foreign.eqpot", "--json", "nowhere/a"), 1, "there is no folder nowhere"),
        (("evaluate", "foreign.eqpot", "a", "--json", "nowhere/a"), 1, "no folder nowhere"),
        (("evaluate", "foreign.eqpot", "a", "--picture", "nowhere/a"), 1, "no folder nowhere"),
        (("data", "audit", "absent", "--json", "nowhere/a"), 1, "there is no folder nowhere"),
        (("info",), 2, "Missing argument"),
        (("info", "foreign.eqpot", "--absent"), 2, "No such option"),
    ],
)
def test_bad_input(arguments, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign.eqpot").write_bytes(b"not a potential at all")
    assert call(monkeypatch, *arguments) == code
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and "compiling" not in error
    assert not list(tmp_path.glob("out.*"))


WATER = """3
Properties=species:S:1:pos:R:3:forces:R:3 energy={energy} pbc="F F F"
O 0.0 0.0 0.{seed}12 0.0 0.0 0.1
H 0.0 0.76 -0.48 0.0 0.05 -0.05
H 0.0 -0.76 -0.48 0.0 -0.05 -0.05
"""
LONE_ATOM = """1
Properties=species:S:1:pos:R:3 config_type=isolated_atom pbc="F F F"
{symbol} 0.0 0.0 0.0
"""
RECIPE = "output: out\ndata: {train: data.xyz, validation: 0.5}\ntraining: {epochs: 1}\n"


def water(n_frames):
    return "".join(WATER.format(energy=-76.0 - 0.1 * i, seed=i) for i in range(n_frames))


@pytest.mark.parametrize(
    ("recipe", "data", "expected"),
    [
        (RECIPE.replace("data.xyz", "dato.xyz"), water(4), ["dato.xyz", "data.xyz"]),
        (RECIPE + "modle: {}\n", water(4), ["recipe.yaml, line 4", "did you mean `model`"]),
        (RECIPE.replace("epochs: 1", "epochs: ten"), water(4), ["line 3", "epochs", "integer"]),
        (RECIPE, water(4)[:-40], ["data.xyz", "frame 3", "line"]),
        (RECIPE, water(4) + LONE_ATOM.format(symbol="Xe"), ["Xe", "frame 4", "E0"]),
        (RECIPE, water(1), ["at least 2 frames", "got 1"]),
        (RECIPE.replace("0.5", "1.5"), water(4), ["line 2", "validation", "1.5"]),
        (RECIPE, water(4).replace("-76.1", "nan"), ["data.xyz", "frame 1", "energy", "finite"]),
    ],
    ids=[
        "wrong path", "unknown key", "wrong type", "truncated", "no E0", "empty split",
        "impossible fraction", "NaN label",
    ],
)  # fmt: skip
def test_bad_training_input(recipe, data, expected, tmp_path, monkeypatch, capsys):
    """One message that names the place, what was expected and what came; nothing is made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(recipe)
    (tmp_path / "data.xyz").write_text(data)
    assert call(monkeypatch, "recipe.yaml", command=train_app) == 1
    error = capsys.readouterr().err
    for part in expected:
        assert part in error
    assert "Traceback" not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.xyz", "recipe.yaml"]


def test_md_of_an_unknown_element_is_one_message(native, tmp_path, monkeypatch, capsys):
    bulk("Cu", cubic=True).write(tmp_path / "copper.xyz")
    code = call(
        monkeypatch, "md", tmp_path / "copper.xyz", "--potential", native, "--steps", 2,
        "--output", tmp_path / "md",
    )  # fmt: skip
    error = capsys.readouterr().err
    assert code == 1
    assert "Cu" in error
    assert "Traceback" not in error
