"""The report of a run: one page that draws itself without a network, and its numbers as JSON."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import bulk, molecule
from typer.testing import CliRunner

import eqpot.cli.train
from browser import CHROMIUM, Browser
from eqpot.cli.main import app
from eqpot.data import Frame
from eqpot.export import export_torchscript
from eqpot.files import save_potential
from eqpot.report.content import report_content
from eqpot.report.head import headline, judge_accuracy
from eqpot.report.page import embedded
from eqpot.report.plain import LONGEST_TEXT, plain, significant, thinned
from eqpot.report.points import OTHERS, Groups, parity
from eqpot.report.training import LARGEST_PAGE, rebuild_page, write_report
from eqpot.report.worst import worst_frames
from eqpot.training.evaluation import Comparison, Evaluation, evaluate
from eqpot.training.recipe import Recipe
from eqpot.verification import Status, Verification, verify
from eqpot.verification.checks import judge_dimers
from eqpot.verification.dimers import Dimer, Dimers
from potentials import graph_of, soft_potential

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "<!--<script>",
    '"><svg onload="window.hacked = 1">',
    "__proto__",
    "constructor",
    "\u2028\u202e\x00\x1b[31m",
    "\ud800 no text",
    "long" * 3000,
]


def labelled(structures, potential, **others):
    frames = []
    for index, atoms in enumerate(structures):
        out = potential(graph_of(atoms, potential.r_max))
        frames.append(
            Frame(
                atoms.numbers,
                atoms.positions,
                atoms.cell[:],
                atoms.pbc,
                energy=float(out["energy"]),
                forces=out["forces"].numpy(),
                stress=out["stress"][0].numpy() if atoms.pbc.all() else None,
                config_type="crystal" if atoms.pbc.all() else "molecule",
                source=f"data/set.xyz, frame {index}",
                **others,
            )
        )
    return frames


def metrics_of(evaluations, **others):
    recipe = Recipe.model_validate({"output": "runs/x", "data": {"train": ["data/set.xyz"]}})
    n = 40
    falling = np.geomspace(1, 0.01, n).tolist()
    return {
        "errors": {name: evaluation.as_dict() for name, evaluation in evaluations.items()},
        "history": {
            "step": list(range(10, 10 * n + 1, 10)),
            "epoch": [float(epoch) for epoch in range(1, n + 1)],
            "seconds": [float(epoch) for epoch in range(1, n + 1)],
            "learning_rate": falling,
            "train_loss": falling,
            "energy_rmse": falling,
            "forces_rmse": falling,
            "virial_rmse": [None] * n,
        },
        "statistics": {"n_weights": 1234, "avg_num_neighbors": 7.5, "force_rms": 1.0},
        "reference_energies": {"H": -13.6, "C": -1029.5, "O": -2041.8, "Si": -7881.1},
        "provenance": {
            "recipe": recipe.model_dump(mode="json"),
            "data_sha256": {"data/set.xyz": "0" * 64},
            "versions": {"eqpot": "0.1.0"},
            "n_steps": 400,
            "n_epochs": 40.0,
        },
        "training_seconds": 83.0,
        "total_seconds": 100.0,
    } | others


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a finished run of a random potential, whose references are those of another."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    structures = []
    for index in range(24):
        atoms = molecule("CH3OH") if index % 3 else bulk("Si", cubic=True)
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        structures.append(atoms)
    frames = labelled(structures, soft_potential(seed=1))
    potential = soft_potential()
    save_potential(folder / "potential.eqpot", potential)
    export_torchscript(folder / "potential.eqpot", folder / "potential.pt")
    sets = {"train": frames[:12], "validation": frames[12:18], "data/test.xyz": frames[18:]}
    evaluations = {name: evaluate(potential, part) for name, part in sets.items()}
    metrics = metrics_of(
        evaluations,
        events=[{"step": 100, "kind": "rollback", "message": "the loss rose 40 times"}],
        audit={
            "sets": {},
            "findings": [
                {
                    "severity": "warning",
                    "check": "duplicates",
                    "cause": "duplicate",
                    "message": "one structure is there twice",
                    "remedy": "keep one",
                    "n_frames": 2,
                    "frames": ["data/set.xyz, frame 3"],
                }
            ],
        },
    )
    result = SimpleNamespace(output=folder, metrics=metrics, evaluations=evaluations, told=[])
    verification = verify(
        folder / "potential.eqpot",
        sets["train"],
        sets["validation"],
        export=folder / "potential.pt",
        seconds=1,
    )
    write_report(result, verification, tell=result.told.append)
    return result


def test_verdicts_that_are_not_good_are_told(run):
    checks = json.loads((run.output / "report.json").read_text())["checks"]
    poor = [check for check in checks if check["status"] in ("warning", "bad")]
    assert {"data", "training"} <= {check["name"] for check in poor} < {c["name"] for c in checks}
    assert run.told == [f"{c['status']}: {c['name']}: {c['message']}" for c in poor]


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


def look(browser, width=1100, scheme="light"):
    """Set the width of the window and the scheme of colours for the next page."""
    browser.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=900, deviceScaleFactor=1, mobile=width < 500,
    )  # fmt: skip


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (1100, "dark"), (390, "light")])
def test_draws_everything_without_complaint_or_request(run, browser, width, scheme):
    look(browser, width, scheme)
    browser.open(run.output / "report.html")
    assert browser.complaints == [] and browser.requests == []
    sections = browser.evaluate("[...document.querySelectorAll('section')].map((s) => s.id)")
    assert sections == [
        "errors", "learning", "predictions", "worst", "dimers", "physics", "speed", "data", "use",
    ]  # fmt: skip
    text = browser.evaluate("document.body.innerText")
    for wrong in ("undefined", "NaN", "[object", "could not be drawn"):
        assert wrong not in text
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page, ink = browser.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    brightness = [sum(map(int, re.findall(r"\d+", color)[:3])) for color in (page, ink)]
    assert (brightness[0] < brightness[1]) == (scheme == "dark")


@needs_browser
def test_every_control_works(run, browser):
    look(browser)
    browser.open(run.output / "report.html")
    browser.evaluate("""(() => {
      for (const select of document.querySelectorAll("select")) {
        for (const option of [...select.options]) {
          select.value = option.value;
          select.dispatchEvent(new Event("change"));
        }
      }
      for (const button of [...document.querySelectorAll("button")]) button.click();
      for (const row of document.querySelectorAll("tr.choice")) row.click();
      const canvas = document.querySelector("canvas");
      for (const key of ["ArrowLeft", "ArrowDown", "+", "-"]) {
        canvas.dispatchEvent(new KeyboardEvent("keydown", { key }));
      }
    })()""")
    for selector in ("#learning svg", "#predictions svg", "#dimers svg", "canvas"):
        place = browser.evaluate(
            f"""(() => {{ const node = document.querySelector("{selector}");
            node.scrollIntoView({{block: "center", behavior: "instant"}});
            const {{x, y, width, height}} = node.getBoundingClientRect();
            return [x + width / 2, y + height / 2]; }})()"""
        )
        for kind in ("mouseMoved", "mousePressed", "mouseMoved", "mouseReleased"):
            browser.call(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left"
            )
    assert browser.complaints == [] and browser.requests == []


@needs_browser
def test_shows_the_numbers_of_the_json(run, browser):
    look(browser)
    browser.open(run.output / "report.html")
    content = json.loads((run.output / "report.json").read_text())
    rows = browser.evaluate(
        "[...document.querySelectorAll('#errors table')[0].querySelectorAll('tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    expected = [
        (name.rpartition("/")[2], label, errors[label])
        for name, errors in content["errors"].items()
        for label in ("energy", "forces", "stress")
        if label in errors
    ]
    assert len(rows) == len(expected) == 9
    for row, (name, label, errors) in zip(rows, expected, strict=True):
        assert row[:2] == [name, label] and row[5] == errors["unit"]
        for text, key in zip(row[2:5], ("rmse", "mae", "max"), strict=True):
            assert float(text) == pytest.approx(errors[key], rel=5e-4)
    # the JSON has the errors of the run itself
    assert content["errors"] == json.loads(json.dumps(run.metrics["errors"]))
    text = browser.evaluate("document.body.innerText")
    assert all(check["message"].replace("`", "") in text for check in content["checks"])
    assert "the loss rose 40 times" in text and "keep one" in text
    first = content["worst"][0]
    cells = browser.evaluate(
        "[...document.querySelector('tr.choice').cells].map((cell) => cell.textContent)"
    )
    assert cells[0] == first["source"]
    assert float(cells[4]) == pytest.approx(first["forces"]["max"], rel=5e-3)


def test_the_longest_advice_is_not_cut(run):
    x = np.ones(3)
    wavy = Dimer(("Si", "Cu"), 2.0, x, x, x, None, 3, None, None)
    hole = replace(wavy, hole_distance=1.234, hole_barrier=0.0123)
    check = judge_dimers(Dimers([hole, *([wavy] * 5000)], 5000, 9), False)
    assert len(check.message) > LONGEST_TEXT
    content = report_content(run, Verification(checks=[check]))
    assert content["checks"][-1]["message"] == check.message


def hostile_run(folder, n_rows=99_999, n_sets=20):
    """Return a run of many large sets with names from an enemy."""
    rng = np.random.default_rng(0)
    atoms = Frame(np.array([6, 1, 8]), np.diag([0.0, 1.1, 1.2]), forces=np.zeros((3, 3)))
    n_frames = n_rows // 9
    frames = [replace(atoms, source=HOSTILE[i % len(HOSTILE)]) for i in range(n_frames)]
    reference = rng.normal(size=n_rows)
    comparison = Comparison(
        reference,
        reference + rng.normal(scale=0.1, size=n_rows),
        np.repeat(np.arange(n_frames), 9),
        np.tile(np.repeat([6, 1, 8], 3), n_frames),
    )
    kinds = [f"{HOSTILE[i % len(HOSTILE)]}{i % 300}" for i in range(n_frames)]
    evaluation = Evaluation(frames, kinds, {"forces": comparison})
    names = ["train", "validation", *(f"{HOSTILE[i % 9]}{i}" for i in range(n_sets))]
    evaluations = dict.fromkeys(names, evaluation)
    errors = evaluation.as_dict()
    metrics = metrics_of({})
    metrics["errors"] = dict.fromkeys(names, errors)
    many = [
        {"step": i, "kind": HOSTILE[i % 9], "message": HOSTILE[i % 9] + str(i)} for i in range(5000)
    ]
    metrics["events"] = many
    metrics["audit"] = {
        "sets": {name: {"n": 1} for name in names},
        "findings": [
            {"severity": "error", "check": name, "cause": name, "message": name, "remedy": name,
             "n_frames": 10**6, "frames": [name] * 10**4}
            for name in HOSTILE * 40
        ],
    }  # fmt: skip
    metrics["provenance"]["data_sha256"] = {f"{name}{i}": "0" * 64 for i in range(500)
                                            for name in HOSTILE}  # fmt: skip
    metrics["history"] = {name: list(range(1, 100_001)) for name in metrics_of({})["history"]}
    return SimpleNamespace(output=folder / HOSTILE[1], metrics=metrics, evaluations=evaluations)


@needs_browser
def test_hostile_names_and_large_sets(tmp_path, browser):
    run = hostile_run(tmp_path)
    run.output = tmp_path / "<img src=x onerror='window.hacked = 1'>"
    run.output.mkdir()
    page = write_report(run, None, failure=HOSTILE[0])
    assert page.stat().st_size <= LARGEST_PAGE < 5_000_000
    look(browser, 390)
    browser.open(page)
    assert browser.complaints == [] and browser.requests == []
    assert browser.evaluate("typeof window.hacked") == "undefined"
    assert browser.evaluate("document.querySelectorAll('script').length") == 2
    assert browser.evaluate("document.querySelectorAll('img, iframe, object, link').length") == 0
    assert browser.evaluate("document.querySelector('h1').textContent") == run.output.name
    assert HOSTILE[0] in browser.evaluate("document.body.textContent")
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # even a script that got in could not run, nor speak to anyone
    blocked = browser.evaluate("""(async () => {
      const script = document.createElement("script");
      script.textContent = "window.hacked = 1";
      document.body.append(script);
      try { await fetch("http://127.0.0.1:9/"); return "sent"; } catch { return "refused"; }
    })()""")
    assert blocked == "refused"
    assert browser.evaluate("typeof window.hacked") == "undefined"
    assert any("Content Security Policy" in str(one) for one in browser.complaints)


def test_json_cannot_leave_its_element():
    text = embedded({"name": "</script><!--<script>&\u2028"})
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == {"name": "</script><!--<script>&\u2028"}


def test_page_is_drawn_anew_from_its_numbers(run, tmp_path):
    (tmp_path / "report.json").write_bytes((run.output / "report.json").read_bytes())
    outcome = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    assert (tmp_path / "report.html").read_bytes() == (run.output / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[1]", "is no report"),
        ('{"format": "eqpot-report", "version": 99}', "`version` must be 1, got 99"),
    ],
)
def test_foreign_numbers_are_refused(text, message, tmp_path):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        rebuild_page(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_thinned_points_keep_the_largest_errors_and_histograms_count_all():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=30_000)
    error = rng.normal(scale=0.01, size=30_000)
    error[777] = 5.0
    frames = [Frame(np.array([1, 8]), np.diag([0.0, 1.0, 0.0])[:2])] * 5000
    comparison = Comparison(
        reference,
        reference + error,
        np.repeat(np.arange(5000), 6),
        np.tile([1] * 3 + [8] * 3, 5000),
    )
    kinds = [f"kind {i % 20}" for i in range(5000)]
    evaluation = Evaluation(frames, kinds, {"forces": comparison})
    groups = Groups.of({"train": evaluation})
    assert groups.config_types[-1] == OTHERS and len(groups.config_types) == 12
    assert groups.elements == ["H", "O"]
    plot = parity("train", evaluation, "forces", groups, 500)
    assert plot["n"] == 30_000 and len(plot["reference"]) == 500
    assert plot["error"][0] == 5000.0 and plot["frame"][0] == 777 // 6
    assert np.diff(np.abs(plot["error"])).max() <= 0
    histogram = plot["histogram"]
    assert sum(histogram["all"]) == 30_000
    assert np.sum(histogram["element"], axis=1).tolist() == [15_000, 15_000]
    counts = np.sum(histogram["config_type"], axis=1)
    assert counts.sum() == 30_000 and counts[:-1].tolist() == [1500] * 11
    assert histogram["all"][-1] >= 1  # the outlier


def evaluation_of(n_frames, error):
    """Return an evaluation whose forces, of rms 1 eV/Å, are all wrong by ``error``."""
    frames = [Frame(np.ones(2, dtype=int), np.arange(6.0).reshape(2, 3))] * n_frames
    signs = np.resize([1.0, -1.0], 6 * n_frames)
    comparison = Comparison(signs, signs + error, np.repeat(np.arange(n_frames), 6))
    return Evaluation(frames, [""] * n_frames, {"forces": comparison})


def test_accuracy_is_judged_by_the_worst_set_that_is_large_enough():
    sets = {
        "train": evaluation_of(900, 0.001),
        "validation": evaluation_of(100, 0.02),
        "tiny.xyz": evaluation_of(1, 0.9),
        "liquid.xyz": evaluation_of(100, 0.2),
        "slab.xyz": evaluation_of(50, 0.05),
    }
    check = judge_accuracy(sets)
    assert check.status is Status.WARNING
    assert "the test set liquid.xyz" in check.message
    assert "20 % of their spread" in check.message
    # a single good frame hides no bad validation set
    check = judge_accuracy({"tiny.xyz": evaluation_of(1, 0.001), "validation": sets["liquid.xyz"]})
    assert "the validation set" in check.message
    assert judge_accuracy({"train": sets["train"]}).status is Status.GOOD
    (_, sentence) = headline(["Si"], {"tiny.xyz": sets["tiny.xyz"]}, "a model")
    assert "(1 frame)" in sentence


def test_worst_frames_are_named_with_their_numbers():
    water = molecule("H2O")
    forces = np.zeros((3, 3))
    frames = [
        Frame(
            water.numbers, water.positions, energy=-9.0, forces=forces, source=f"a.xyz, frame {i}"
        )
        for i in range(5)
    ]
    predicted = np.zeros((5, 3, 3))
    predicted[3, 2] = [0.3, 0.0, -0.4]
    energies = np.full(5, -3.0)
    found = energies + np.array([0, 0.01, 0, 0, -0.02])
    rows = np.repeat(np.arange(5), 9)
    evaluation = Evaluation(
        frames,
        [""] * 5,
        {
            "energy": Comparison(energies, found, np.arange(5), None, np.zeros(5)),
            "forces": Comparison(np.zeros(45), predicted.ravel(), rows, np.tile(8, 45)),
        },
    )
    first, second = worst_frames("test", evaluation, 1)
    assert first["source"] == "a.xyz, frame 3" and first["worst_by"] == ["forces"]
    assert first["forces"] == {
        "rmse": pytest.approx(1e3 * 0.5 / 3), "max": pytest.approx(500.0), "atom": 2
    }  # fmt: skip
    assert first["predicted_forces"][2] == [0.3, 0.0, -0.4] and first["formula"] == "H2O"
    assert second["source"] == "a.xyz, frame 4" and second["worst_by"] == ["energy"]
    assert second["energy"]["predicted"] == pytest.approx(3 * -3.02)
    assert second["energy"]["error"] == pytest.approx(-20.0)


def test_errors_know_the_element_of_each_force(run):
    evaluation = run.evaluations["train"]
    comparison = evaluation.comparisons["forces"]
    for z, symbol in ((1, "H"), (14, "Si")):
        rows = [
            (predicted - reference)
            for index, frame in enumerate(evaluation.frames)
            for reference, predicted in [
                (
                    frame.forces,
                    comparison.predicted[comparison.frame_index == index].reshape(-1, 3),
                )
            ]
            for reference, predicted in zip(
                reference[frame.atomic_numbers == z],
                predicted[frame.atomic_numbers == z],
                strict=True,
            )
        ]
        found = evaluation.as_dict()["forces"]["by_element"][symbol]
        assert found["rmse"] == pytest.approx(1e3 * np.sqrt(np.mean(np.square(rows))))
        assert found["mae"] == pytest.approx(1e3 * np.abs(rows).mean())
        assert found["max"] == pytest.approx(1e3 * np.abs(rows).max())
        assert found["n"] == np.size(rows)


def test_values_are_made_plain():
    assert plain({"a": np.float64("nan"), "b": (np.int64(3), np.inf), "c": np.arange(2.0)}) == {
        "a": None, "b": [3, None], "c": [0.0, 1.0]
    }  # fmt: skip
    assert significant(np.array([1.23456789, -1e-9 / 3, np.nan]), 3) == [1.23, -3.33e-10, None]
    assert thinned(1000, 5).tolist() == [0, 250, 500, 749, 999]
    assert thinned(3, 10).tolist() == [0, 1, 2] and thinned(0, 4).size == 0
    with pytest.raises(TypeError, match="set"):
        plain({"a": {1}})


def test_a_failing_check_loses_nothing(run, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("the machine is on fire")

    rng = np.random.default_rng(0)
    structures = [molecule("H2O") for _ in range(6)]
    for atoms in structures:
        atoms.positions += rng.normal(scale=0.05, size=(3, 3))
    data = tmp_path / "water.xyz"
    lines = []
    for frame in labelled(structures, soft_potential(seed=1)):
        lines.append(
            f'3\nProperties=species:S:1:pos:R:3:forces:R:3 energy={frame.energy} pbc="F F F"'
        )
        for symbol, position, force in zip("OHH", frame.positions, frame.forces, strict=True):
            lines.append(" ".join(map(str, [symbol, *position, *force])))
    data.write_text("\n".join(lines) + "\n")
    (tmp_path / "recipe.yaml").write_text(
        f"output: {tmp_path / 'run'}\ndata: {{train: {data}, validation: 0.4}}\n"
        "model: {preset: small, n_features: 8, r_max: 3.5}\ntraining: {epochs: 1}\n"
    )
    monkeypatch.setattr(eqpot.cli.train, "verify", fail)
    outcome = CliRunner().invoke(eqpot.cli.train.app, [str(tmp_path / "recipe.yaml")])
    assert outcome.exit_code == 0, outcome.output
    assert "the machine is on fire" in outcome.output
    content = json.loads((tmp_path / "run" / "report.json").read_text())
    assert content["failure"] == "RuntimeError: the machine is on fire"
    assert content["verification"] is None
    assert (tmp_path / "run" / "potential.eqpot").is_file()
