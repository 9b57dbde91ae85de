"""A loss that diverges is stopped before the update, explained, and the run goes on if it can."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write

from eqpot.data import FrameStore, read_frames
from eqpot.files import load_potential
from eqpot.training.guard import DivergenceGuard
from eqpot.training.progress import RunLog
from eqpot.training.rescue import DivergedError, FrameErrors, Rescue
from training_runs import quiet_run, recipe_of, write_frames


@pytest.fixture
def frames(tmp_path):
    return write_frames(tmp_path / "frames.extxyz")


def test_frames_at_rest_beside_frames_in_motion_train_without_alarm(tmp_path):
    """Copper: six in ten frames nearly perfect, the others hot; one frame a step."""
    rng = np.random.default_rng(0)
    images = []
    for index in range(60):
        atoms = bulk("Cu", cubic=True)
        atoms.positions += rng.normal(scale=0.15 if index % 5 < 2 else 0.003, size=(4, 3))
        atoms.calc = EMT()
        atoms.get_forces()
        images.append(atoms)
    write(tmp_path / "copper.extxyz", images)
    recipe = recipe_of(tmp_path / "copper.extxyz", tmp_path / "run", epochs=3, batch_size=1)
    assert quiet_run(recipe).training.events == []


def poison(path, index, name, value):
    images = read(path, ":")
    images[index].calc.results[name] = value
    images[index].calc.results.pop("free_energy", None)
    write(path, images)


def test_a_label_that_is_not_a_number_is_refused_with_file_and_frame(frames, tmp_path):
    poison(frames, 4, "energy", float("nan"))
    with pytest.raises(ValueError, match=r"frames\.extxyz, frame 4.*`energy` must be finite"):
        quiet_run(recipe_of(frames, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_poisoned_frame_is_named_left_out_and_the_run_goes_on(frames, tmp_path):
    """A label that is finite but whose square is not gets past every reader."""
    validation = write_frames(tmp_path / "validation.extxyz", 4, seed=1)
    data = {"validation": str(validation), "test": []}
    poison(frames, 4, "energy", 1e200)
    # as text, the number comes back
    assert read_frames(frames).frames[4].energy == 1e200
    recipe = recipe_of(frames, tmp_path / "run", data, dtype="float64")
    given = {"H": 0.0, "C": 0.0, "O": 0.0}  # a fit to such energies would be as wrong
    recipe = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"reference_energies": given})}
    )
    result = quiet_run(recipe)
    (event,) = result.training.events
    assert event["kind"] == "frame_excluded"
    assert "frames.extxyz, frame 4: its loss is inf" in event["message"]
    stored = FrameStore(tmp_path / "run" / f"batch_of_step_{event['step']}.h5")
    assert 1e200 in [frame.energy for frame in stored]
    assert np.isfinite(result.training.history[-1].train_loss)
    assert result.training.n_steps == 12


def test_a_rate_far_too_high_is_lowered(frames, tmp_path):
    recipe = recipe_of(
        frames, tmp_path / "run", epochs=60, learning_rate=0.4, checkpoint_interval=1e-3
    )
    result = quiet_run(recipe)
    kinds = [event["kind"] for event in result.training.events]
    assert kinds and set(kinds) == {"rollback"}
    message = result.training.events[0]["message"]
    for part in ("learning rate", "frames, worst first", "frames.extxyz, frame", "Goes back to"):
        assert part in message
    last = result.training.history[-1]
    assert last.learning_rate < 0.4 * 0.25
    assert last.forces_rmse < 3.0  # of forces of 2 eV/Å: not lost
    load_potential(tmp_path / "run" / "potential.eqpot")


def test_a_run_that_never_recovers_ends_with_a_word_and_its_last_good_state(frames, tmp_path):
    recipe = recipe_of(frames, tmp_path / "run", learning_rate=1e30, max_rollbacks=2)
    with pytest.raises(DivergedError, match=r"went back 2 times.*lower `training.learning_rate`"):
        quiet_run(recipe)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert "checkpoint.safetensors" in names
    # the same command says the same, and does not go on from weights that have diverged
    with pytest.raises(DivergedError), RunLog() as log:
        quiet_run(recipe, log)


class KeepingLog(RunLog):
    """Keeps the lines."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def line(self, text=""):
        super().line(text)
        self.lines.append(text)


def test_sound_frames_are_not_blamed_for_weights_that_were_validated_too_early(frames, tmp_path):
    """A rate that is far too high from half of the run on, a step before a validation."""
    stages = [{"start": 0.5, "learning_rate": 1e3}]
    recipe = recipe_of(frames, tmp_path / "run", epochs=40, stages=stages, max_rollbacks=2)
    log = KeepingLog()
    with pytest.raises(DivergedError, match="went back 2 times"):
        quiet_run(recipe, log)
    words = [line.split(":")[0] for line in log.lines]
    assert "rollback" in words
    assert "frame excluded" not in words and "outlier" not in words


def guard_with(errors, baseline=1.0, spike_factor=100.0):
    guard = DivergenceGuard(spike_factor)
    for error in errors:
        assert guard.judge(error, baseline) is None
        guard.accept(error, baseline)
    return guard


def test_a_spike_is_far_above_the_median_and_worse_than_nothing():
    guard = guard_with([0.01] * 30)
    assert guard.judge(0.9, 1.0) is None  # below the median times 100
    assert guard.judge(5.0, 1.0) is None  # less than ten times what forces of zero give
    assert "2e+03 times the median" in guard.judge(20.0, 1.0)
    assert guard.judge(float("nan"), float("nan")) is None  # no forces to judge by
    assert DivergenceGuard(100.0).judge(1e9, 1.0) is None  # nothing to compare with yet


def test_a_slow_climb_is_divergence_too():
    guard = guard_with([1.0] * 20)
    reasons = []
    error = 1.0
    while not reasons and error < 1e6:
        error *= 1.05
        reason = guard.judge(error, 1.0)
        reasons += [reason] if reason else []
        guard.accept(error, 1.0)
    assert "that of forces of zero" in reasons[0]
    assert error < 100.0


def test_a_converging_run_is_left_alone():
    rng = np.random.default_rng(0)
    steps = np.arange(3000)
    errors = np.exp(-steps / 300) * np.exp(rng.normal(scale=1.0, size=3000)) + 1e-4
    guard_with(errors.tolist())


def test_frames_at_rest_among_frames_in_motion_are_no_alarm():
    """Most steps have errors of 1e-4, others of 1e-1: less than what forces of zero would give."""
    rng = np.random.default_rng(0)
    for share in (0.3, 0.5, 0.6, 0.9):
        guard = DivergenceGuard(100.0)
        for moving in rng.random(3000) < share:
            pair = (0.1, 2.0) if moving else (1e-4, 1e-5)
            assert guard.judge(*pair) is None
            guard.accept(*pair)


def test_a_frame_nearly_at_rest_that_is_not_learned_yet_is_no_alarm():
    """Crystals have no forces, surfaces are relaxed to 4 meV/Å and not learned, others move."""
    rng = np.random.default_rng(0)
    guard = DivergenceGuard(100.0)
    kinds = [(1e-6, 0.0), (1e-6, 0.0), (0.1, 1e-5), (0.02, 2.0)]
    for kind in rng.integers(len(kinds), size=3000):
        assert guard.judge(*kinds[kind]) is None
        guard.accept(*kinds[kind])
    assert "the median" in guard.judge(10.0, 1e-5)


def test_state_of_guard_and_rescue_comes_back():
    guard = guard_with([0.01 * k for k in range(1, 40)])
    other = DivergenceGuard(100.0)
    other.load_state_dict(guard.state_dict())
    assert other.recent == guard.recent
    rescue = Rescue(3, 100)
    rescue.n_rollbacks, rescue.excluded, rescue.outliers = 2, frozenset({4}), {5, 6}
    fresh = Rescue(3, 100)
    fresh.load_state_dict(rescue.state_dict())
    assert fresh.state_dict() == rescue.state_dict()
    assert fresh.rate_factor == 0.0625


def answer(rescue, errors, good):
    guard = guard_with([0.01] * 30)
    sources = {index: f"a.xyz, frame {index}" for index in errors}
    return rescue.answer("the loss is 9", 50, 0.1, 40, guard, sources, errors, good)


FINE = FrameErrors(0.01, 1.0, 0.01, 1.0)
SPIKE = FrameErrors(50.0, 1.0, 50.0, 1.0)
BROKEN = FrameErrors(float("inf"), float("nan"), 0.01, 1.0)


def test_an_outlier_is_named_once_and_kept():
    rescue = Rescue(3, 100)
    first = answer(rescue, {1: FINE, 2: SPIKE}, {1: FINE, 2: SPIKE})
    assert first.kind == "outlier" and first.takes_step and "frame 2: the error" in first.message
    second = answer(rescue, {1: FINE, 2: SPIKE}, {1: FINE, 2: SPIKE})
    assert second.kind is None and second.takes_step
    assert rescue.rate_factor == 1.0


def test_weights_that_fail_on_frames_that_were_fine_go_back():
    rescue = Rescue(1, 100)
    first = answer(rescue, {1: FINE, 2: SPIKE}, {1: FINE, 2: FINE})
    assert first.rolls_back and "back to step 40 with 0.25 of the learning rate" in first.message
    last = answer(rescue, {1: FINE, 2: BROKEN}, {1: FINE, 2: FINE})
    assert last.ends and "frame 2 (loss inf); a.xyz, frame 1" in last.message


def test_too_many_broken_frames_end_the_run():
    rescue = Rescue(3, 100)
    for index in range(10):
        assert answer(rescue, {index: BROKEN}, {index: BROKEN}).kind == "frame_excluded"
    last = answer(rescue, {10: BROKEN}, {10: BROKEN})
    assert last.ends and "11 such frames: mend the data first" in last.message
