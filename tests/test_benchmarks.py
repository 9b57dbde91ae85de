"""The benchmarks run, agree on positions, and write what the tables are made of."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "benchmarks"


def run(tmp_path: Path, *words: str) -> tuple[dict, str]:
    """Return the JSON document and the tables of a run."""
    out = tmp_path / "results.json"
    files = ["--json", str(out), "--png", str(out.with_suffix(".png"))]
    files += ["--folder", str(tmp_path / "build")]
    ended = subprocess.run(
        [sys.executable, str(FOLDER), *words, *files],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(out.read_text()), ended.stdout


@pytest.fixture(scope="module")
def speed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    # an interpreter that does not exist is a peer that cannot be measured
    variant = 'eqpot-kept={"preset": "small", "calculator": {"skin": 0.5}, "threads": 2}'
    words = ["--systems", "molecule", "--rounds", "3", "--warmup", "2", "--seconds", "0.05"]
    programs = ["--programs", "eqpot-small", "mace-32", "--python", f"mace={folder / 'none'}"]
    document, text = run(folder, "speed", *words, *programs, "--variant", variant)
    return document["speed"], text, folder


def test_speed_holds_every_call_of_every_program(speed):
    section, text, folder = speed
    found = section["systems"]["molecule"]
    assert found["n_atoms"] == 21
    assert list(found["variants"]) == ["eqpot-small", "eqpot-kept"]
    assert [values["threads"] for values in found["variants"].values()] == [1, 2]
    kept = {"preset": "small", "calculator": {"skin": 0.5}}
    assert found["variants"]["eqpot-kept"]["options"] == kept
    assert f"- eqpot-kept: {kept}" in text
    for values in found["variants"].values():
        assert [len(turn) for turn in values["seconds"]] == 3 * [found["calls_per_round"]]
        times = values["milliseconds"]
        assert 0 < times["min"] <= times["median"] <= times["max"]
        assert values["memory_mib"] > 0
    assert set(found["variants"]["eqpot-small"]["ratio"].values()) == {1.0}
    assert (folder / "results.png").read_bytes().startswith(b"\x89PNG")


def test_a_peer_that_is_not_there_is_told_and_the_others_go_on(speed):
    section, text, _ = speed
    assert list(section["failures"]) == ["mace-32, molecule"]
    assert "Failed:\n\n- mace-32, molecule: " in text


def test_tables_are_markdown_with_a_row_a_program(speed):
    section, text, _ = speed
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert [row.split()[1] for row in rows] == ["program", "---", "eqpot-small", "eqpot-kept"]
    assert f"eqpot at commit {section['machine']['commit']}" in text


def test_tables_of_the_results_that_are_kept_can_be_made_again(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import tables

    text = tables.as_markdown(json.loads((FOLDER / "results.json").read_text()))
    assert "| eqpot-medium" in text and "| mace-128 |" in text and "- mace-128" in text


def test_walk_is_the_same_in_every_process_and_no_call_repeats_positions(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    from systems import STEP, SYSTEMS, Walk

    for make in SYSTEMS.values():
        walks = [Walk(make()) for _ in range(2)]
        start = walks[0].atoms.positions.copy()
        for walk in walks:
            walk.step()
        assert walks[0].fingerprint() == walks[1].fingerprint()
        moved = walks[0].atoms.positions - start
        # 21 atoms at least: the mean square of 63 numbers is known to 18 %, three times that here
        assert (moved**2).sum(axis=1).mean() == pytest.approx(STEP**2, rel=0.54)
        walks[1].step()
        assert walks[0].fingerprint() != walks[1].fingerprint()


@pytest.mark.slow
def test_training_and_accuracy_of_eqpot(tmp_path):
    data = Path(__file__).resolve().parents[1] / "data" / "ethanol"
    frames = sorted(data.glob("*.extxyz"))
    train = next(path for path in frames if "train" in path.name)
    test = next(path for path in frames if "test" in path.name)
    words = ["--programs", "eqpot-small", "--train", str(train)]
    short = ["--rounds", "3", "--warmup", "2", "--seconds", "1"]
    document, _ = run(tmp_path, "training", *words, *short)
    values = document["training"]["variants"]["eqpot-small"]
    assert values["structures_per_second"] == pytest.approx(5e3 / values["milliseconds"]["median"])
    document, text = run(tmp_path, "accuracy", *words, "--test", str(test), "--minutes", "0.2")
    assert set(document) == {"training", "accuracy"}
    values = document["accuracy"]["variants"]["eqpot-small"]
    assert 6 < values["training_seconds"] < 24
    assert values["errors"][test.stem]["forces"] > 0
    assert "eqpot-small" in text
