"""Schedules, stages and patience have the values that their formulas give, and can be continued."""

import json
import math

import pytest
from pydantic import ValidationError

from eqpot.training.loss import LossWeights
from eqpot.training.metric import validation_metric
from eqpot.training.patience import Patience
from eqpot.training.schedule import ScheduleSettings, build_schedule
from eqpot.training.stages import Stages, StageSettings, energy_weight

N_STEPS = 1001  # step s is at the fraction s / 1000 of the run


def factors_at(steps, **settings):
    schedule = build_schedule(ScheduleSettings(**settings), N_STEPS)
    return [schedule.factor(step) for step in steps]


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ({"kind": "constant", "final": 0.5}, {0: 1, 500: 1, 1000: 1}),
        ({}, {0: 1, 500: (1 + 0.002) / 2, 1000: 0.002}),
        ({"final": 0.1}, {250: 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2, 1000: 0.1}),
        ({"kind": "exponential", "final": 1e-4}, {0: 1, 250: 0.1, 500: 0.01, 1000: 1e-4}),
        (
            {"kind": "step", "gamma": 0.1, "interval": 0.3},
            {0: 1, 299: 1, 300: 0.1, 599: 0.1, 600: 0.01, 899: 0.01, 900: 0.002, 1000: 0.002},
        ),
        ({"kind": "step", "interval": 0.2}, {599: 0.25, 600: 0.125, 1000: 0.5**5}),
        (
            {"kind": "wsd", "decay": 0.4, "final": 0.2},
            {0: 1, 600: 1, 700: 0.6, 1000: 0.2},  # the root of a quarter is a half
        ),
    ],
)
def test_factor_is_that_of_the_formula(settings, values):
    found = factors_at(values, warmup=0, **settings)
    assert found == pytest.approx(list(values.values()), rel=1e-12)


@pytest.mark.parametrize("kind", ["constant", "cosine", "step", "exponential", "wsd", "plateau"])
def test_warm_up_rises_linearly(kind):
    with_warmup = factors_at(range(60), kind=kind, warmup=50)
    without = factors_at(range(60), kind=kind, warmup=0)
    expected = [min(1.0, (step + 1) / 50) * value for step, value in enumerate(without)]
    assert with_warmup == pytest.approx(expected, rel=1e-12)


def test_warm_up_takes_at_most_a_tenth():
    schedule = build_schedule(ScheduleSettings(kind="constant", warmup=100), 200)
    assert schedule.factor(18) < 1.0
    assert schedule.factor(19) == 1.0
    assert build_schedule(ScheduleSettings(), 1).factor(0) == 1.0


def test_plateau_falls_when_patience_is_over():
    settings = ScheduleSettings(
        kind="plateau", patience=2, gamma=0.1, final=0.05, warmup=0, min_improvement=0.1
    )
    schedule = build_schedule(settings, 100)
    seen = []
    # improvement, 5 % is none, NaN is none: down; two more: down, to the floor; better: stays
    for metric in (1.0, 0.95, math.nan, 2.0, 0.91, 0.5):
        schedule.observe(metric)
        seen.append(schedule.factor(50))
    assert seen == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.05, 0.05])


@pytest.mark.parametrize("kind", ["constant", "cosine", "step", "exponential", "wsd", "plateau"])
def test_continued_schedule_is_the_same(kind):
    settings = ScheduleSettings(kind=kind, patience=2)
    metrics = [3.0, 2.0, 2.5, 2.4, 1.0, 1.1, 1.2, 1.3, 1.4, 0.9]
    whole = build_schedule(settings, 100)
    for metric in metrics[:3]:
        whole.observe(metric)
    state = json.loads(json.dumps(whole.state_dict(), allow_nan=False))
    continued = build_schedule(settings, 100)
    continued.load_state_dict(state)
    for step, metric in enumerate(metrics[3:], start=50):
        whole.observe(metric)
        continued.observe(metric)
        assert whole.factor(step) == continued.factor(step)


def test_patience_counts_validations_in_a_row():
    patience = Patience(3)
    assert [patience.observe(value) for value in (5, 6, 6, 4, 4, math.nan, 4.1)] == 6 * [False] + [
        True
    ]
    assert patience.best == 4
    assert not any(Patience(None).observe(1.0) for _ in range(100))
    continued = Patience(3)
    continued.load_state_dict(json.loads(json.dumps(patience.state_dict())))
    assert not continued.observe(3.9)
    assert continued.observe(3.8) is False
    assert json.loads(json.dumps(Patience(1).state_dict())) == {"best": None, "n_waited": 0}


def test_energy_weight_rises_geometrically():
    def at(step):
        return energy_weight(step, N_STEPS, 0.01, 10.0, 0.7)

    assert [at(step) for step in (0, 700, 750, 800, 1000)] == pytest.approx(
        [0.01, 0.01, math.sqrt(0.1), 10.0, 10.0], rel=1e-9
    )


def stages_of(*stages):
    return Stages(0.004, LossWeights(0.01, 1.0, 0.1), 10.0, 0.7, stages, N_STEPS)


def test_without_stages_the_energy_weight_alone_changes():
    stages = stages_of()
    for step in (0, 700, 750, 1000):
        settings = stages.at(step)
        assert settings.learning_rate == 0.004
        assert settings.weights == LossWeights(
            energy_weight(step, N_STEPS, 0.01, 10.0, 0.7), 1.0, 0.1
        )


def test_a_stage_replaces_what_it_names_until_another_does():
    stages = stages_of(
        StageSettings(start=0.2, forces_weight=5.0),
        StageSettings(start=0.5, learning_rate=1e-3, energy_weight=2.0),
        StageSettings(start=0.9, energy_weight=3.0, stress_weight=0.0),
    )
    assert stages.at(199) == stages_of().at(199)
    assert stages.at(200).weights == LossWeights(0.01, 5.0, 0.1)
    assert stages.at(200).learning_rate == 0.004
    assert stages.at(750).weights == LossWeights(2.0, 5.0, 0.1)  # not the rise
    assert stages.at(1000).weights == LossWeights(3.0, 5.0, 0.0)
    assert stages.at(1000).learning_rate == 1e-3


@pytest.mark.parametrize("starts", [(0.5, 0.2), (0.5, 0.5)])
def test_stages_out_of_order_are_refused(starts):
    with pytest.raises(ValueError, match="`stages` must be in the order of their `start`, got"):
        stages_of(*(StageSettings(start=start, forces_weight=1.0) for start in starts))


def test_a_stage_that_changes_nothing_is_refused():
    with pytest.raises(ValidationError, match="a stage must change `learning_rate`"):
        StageSettings(start=0.5)


def test_validation_metric():
    weights = LossWeights(10.0, 2.0, 0.1)
    errors = {"energy_rmse": 0.1, "forces_rmse": 0.3, "virial_rmse": 0.2}
    of = {"force_unit": 0.5, "weights": weights}
    assert validation_metric("forces", **errors, **of) == 0.3
    assert validation_metric("loss", **errors, **of) == pytest.approx(
        10 * 0.04 + 2 * 0.36 + 0.1 * 0.16
    )
    errors["virial_rmse"] = math.nan
    assert validation_metric("loss", **errors, **of) == pytest.approx(10 * 0.04 + 2 * 0.36)
    assert math.isnan(validation_metric("stress", **errors, **of))
