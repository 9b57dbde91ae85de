"""A run learns, repeats itself, ends as planned, and fails with a word about why."""

import functools
import json

import pytest
import torch
from ase.build import molecule
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from typer.testing import CliRunner

import eqpot.cli.train
import eqpot.training.run
import eqpot.training.run_data
from eqpot.cli.train import app
from eqpot.files import load_potential
from eqpot.program import ExportError
from eqpot.report.head import judge_training
from eqpot.training.loggers import CsvLogger
from eqpot.training.progress import RunLog
from eqpot.training.recipe import Recipe, parse_duration
from eqpot.training.rescue import DivergedError
from eqpot.training.run_data import read_data
from eqpot.verification import verify
from eqpot.verification.checks import Status
from training_runs import quiet_run, recipe_of, write_frames


@pytest.fixture
def frames(tmp_path):
    return write_frames(tmp_path / "frames.extxyz")


def test_overfits_a_few_structures(frames, tmp_path):
    result = quiet_run(recipe_of(frames, tmp_path / "run", epochs=150, learning_rate=0.01))
    before, after = (result.training.history[index] for index in (0, -1))
    assert result.metrics["errors"]["train"]["forces"]["rmse"] < 0.15 * 1e3 * before.forces_rmse
    assert after.train_loss < 0.05 * before.train_loss
    assert result.metrics["errors"]["train"]["stress"]["n"] > 0


def test_same_seed_gives_the_same_weights_and_another_does_not(frames, tmp_path):
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        quiet_run(recipe_of(frames, tmp_path / name, seed=seed))
        files.append(load_potential(tmp_path / name / "potential.eqpot", dtype="float64"))
    one, same, other = (list(potential.parameters()) for potential in files)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("key", "data", "others"),
    [
        ("data.train", {"train": ["no.xyz"]}, {}),
        ("data.validation", {"validation": "no.xyz"}, {}),
        ("data.test", {"test": ["frames.extxyz", "no.xyz"]}, {}),
        ("fine_tuning.replay", {}, {"potential": "p.eqpot", "replay": ["no.xyz"]}),
    ],
)
def test_a_missing_file_is_told_by_its_key_before_anything_is_read(
    key, data, others, frames, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    read = []
    monkeypatch.setattr(eqpot.training.run_data, "read_frames", read.append)
    recipe = recipe_of(frames, tmp_path / "run", data).model_dump()
    recipe = Recipe.model_validate(recipe | {"fine_tuning": others})
    with RunLog() as log, pytest.raises(FileNotFoundError, match=f"`{key}`: no.xyz: no such file"):
        read_data(recipe, log)
    assert not read


def test_leaves_what_it_promises(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(eqpot.cli.train, "verify", functools.partial(verify, seconds=1))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"output: {tmp_path / 'run'}\n"
        f"data:\n  train: {frames}\n  test: [{frames}]\n  audit: false\n"
        "model: {preset: small, n_features: 8, r_max: 3.5}\ntraining: {epochs: 2}\n"
    )
    outcome = CliRunner().invoke(app, [str(recipe)])
    assert outcome.exit_code == 0, outcome.output
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "potential.eqpot",
        "potential.pt",
        "metrics.json",
        "report.html",
        "report.json",
        "train.log",
        "recipe.yaml",
    }
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(metrics["errors"]) == {"train", "validation", str(frames)}
    errors = metrics["errors"][str(frames)]
    assert errors["energy"]["unit"] == "meV/atom"
    assert errors["forces"]["n"] == 16 * 5 * 3
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["errors"] == metrics["errors"]
    checked = {check["name"] for check in report["checks"]}
    assert checked >= {"accuracy", "symmetry", "derivatives", "export", "dimers"}
    assert report["failure"] == ""
    again = CliRunner().invoke(app, [str(recipe)])
    assert again.exit_code == 0
    assert "nothing left to do" in again.output


def test_max_time_becomes_a_number_of_steps_that_are_all_taken(frames, tmp_path):
    recipe = recipe_of(frames, tmp_path / "run", epochs=None, max_time="2 s", learning_rate=0.003)
    result = quiet_run(recipe)
    last = result.training.history[-1]
    assert last.step == result.training.n_steps > 3
    final = recipe.training.schedule.final * 0.003
    assert last.learning_rate == pytest.approx(final, rel=0.2)


def test_energies_alone_are_refused_with_the_key_that_names_forces(frames, tmp_path):
    images = read(frames, ":")
    for atoms in images:
        atoms.arrays["my_forces"] = atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy())
    path = tmp_path / "energies.extxyz"
    write(path, images)
    with pytest.raises(ValueError, match=r"not enough: compute them or, .* `data.forces_key`"):
        quiet_run(recipe_of(path, tmp_path / "run"))
    quiet_run(recipe_of(path, tmp_path / "run", data={"forces_key": "my_forces"}, epochs=1))


def test_a_loss_that_is_not_finite_names_the_frames(frames, tmp_path):
    with pytest.raises(DivergedError, match=r"frames\.extxyz, frame \d+.*learning_rate"):
        quiet_run(recipe_of(frames, tmp_path / "run", learning_rate=1e30))


@pytest.mark.parametrize(
    ("text", "seconds"), [("10 min", 600), ("2h", 7200), ("1.5 s", 1.5), ("1 d", 86400), (30.0, 30)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["ten", "10", "-3 min", "10 parsec", 0.0, "0 s", float("inf")])
def test_impossible_durations(text):
    with pytest.raises(ValueError, match="must be a duration"):
        parse_duration(text)


def test_an_unknown_element_in_a_test_file_is_refused_before_anything_is_made(frames, tmp_path):
    strange = tmp_path / "strange.extxyz"
    atoms = molecule("SiH4")
    atoms.calc = LennardJones()
    atoms.get_forces()
    write(strange, atoms)
    recipe = recipe_of(frames, tmp_path / "run")
    recipe = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"test": [str(strange)]})}
    )
    with pytest.raises(ValueError, match=r"strange\.extxyz, frame 0.*Si"):
        quiet_run(recipe)
    assert not (tmp_path / "run").exists()


def test_defaults_are_a_recipe(tmp_path):
    outcome = CliRunner().invoke(app, ["--defaults"])
    assert outcome.exit_code == 0
    assert "max_time" in outcome.output


def test_the_audit_stops_what_a_training_should_not_rest_on(frames, tmp_path):
    """The test frames are training frames, which is an error unless it is accepted."""
    audited = {"audit": True}
    with pytest.raises(ValueError, match=r"(?s)\[overlap\].*accept: \[overlap\]"):
        quiet_run(recipe_of(frames, tmp_path / "run", audited))
    assert not (tmp_path / "run").exists()
    result = quiet_run(recipe_of(frames, tmp_path / "run", audited | {"accept": ["overlap"]}))
    causes = {finding["cause"] for finding in result.metrics["audit"]["findings"]}
    assert "overlap" in causes
    written = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert (
        written
        == {"data_sha256": result.metrics["provenance"]["data_sha256"]} | (result.metrics["audit"])
    )


def test_a_logger_that_fails_is_left_out_and_the_run_goes_on(frames, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(CsvLogger, "log_metrics", fails)
    result = quiet_run(recipe_of(frames, tmp_path / "run", loggers=["csv"]))
    (event,) = result.training.events
    assert event["kind"] == "logger" and "no space left" in event["message"]


def test_a_potential_that_cannot_be_exported_is_left_with_all_else(frames, tmp_path, monkeypatch):
    def refused(*_):
        raise ExportError("the potential overflows")

    monkeypatch.setattr(eqpot.training.run, "export_torchscript", refused)
    output = tmp_path / "out"
    result = quiet_run(recipe_of(frames, output))
    assert (output / "potential.eqpot").exists() and not (output / "potential.pt").exists()
    (event,) = json.loads((output / "metrics.json").read_text())["events"]
    assert (event["kind"], event["message"]) == ("no_export", "the potential overflows")
    assert "no_export: the potential overflows" in (output / "train.log").read_text()
    verdict = judge_training(result.metrics["events"])
    assert verdict.status is Status.WARNING and "There is no TorchScript export" in verdict.message
