"""Commands: frozen options; bad input gives one message, an exit code and no half-written file."""

import json

import pytest
import typer
from ase.build import bulk
from typer.main import get_command

from eqpot.cli.errors import run_app
from eqpot.files import read_header, save_potential
from soft_potentials import soft_potential

pytest.importorskip("eqpot.cli.md", reason="the command `eqpot` imports all its commands")
from eqpot.cli.main import app

OPTIONS = {
    "info": {"potential", "as_json"},
    "export": {"potential", "output", "dtype"},
    "evaluate": {"potential", "data", "dtype", "json_file", "picture"},
}


@pytest.fixture
def native(tmp_path):
    save_potential(tmp_path / "p.eqpot", soft_potential())
    return tmp_path / "p.eqpot"


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["eqpot", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run_app(app)
    return ended.value.code or 0


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_frozen(name):
    command = get_command(app).commands[name]
    assert {parameter.name for parameter in command.params} - {"help"} == OPTIONS[name]
    assert command.help and all(p.help for p in command.params if p.name != "help")


def test_there_is_no_completion_option():
    assert isinstance(app, typer.Typer)
    assert [p.name for p in get_command(app).params if p.name != "help"] == []


def test_info_as_json_is_the_header(native, monkeypatch, capsys):
    assert call(monkeypatch, "info", native, "--json") == 0
    assert json.loads(capsys.readouterr().out) == read_header(native)


def test_export_writes_a_program(native, tmp_path, monkeypatch):
    assert call(monkeypatch, "export", native, tmp_path / "p.pt", "--dtype", "float64") == 0
    assert (tmp_path / "p.pt").stat().st_size > 0


def test_evaluate_a_file_without_labels_is_one_message(native, tmp_path, monkeypatch, capsys):
    bulk("Si").write(tmp_path / "bare.xyz")
    code = call(monkeypatch, "evaluate", native, tmp_path / "bare.xyz", "--json", tmp_path / "e")
    error = capsys.readouterr().err
    assert code == 1 and "bare.xyz" in error and "Traceback" not in error
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("info", "absent.eqpot"), 1, "no such file"),
        (("info", "foreign.eqpot"), 1, "not a potential file"),
        (("export", "foreign.eqpot", "out.pt"), 1, "not a potential file"),
        (("info",), 2, "Missing argument"),
        (("info", "foreign.eqpot", "--absent"), 2, "No such option"),
    ],
)
def test_bad_input(arguments, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign.eqpot").write_bytes(b"not a potential at all")
    assert call(monkeypatch, *arguments) == code
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "out.pt").exists()
