"""What a long run shows."""

import pytest

from eqpot import progress


class Clock:
    """A time that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_a_first_step_that_compiles_is_not_part_of_the_rate(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: False)
    shown = progress.StepProgress("training", leave_out_first=True)
    shown.start(1000, first=500)
    clock.now = 300.0
    assert shown.step(501) is None
    clock.now = 305.0
    assert shown.step(551) is None
    clock.now = 310.0
    pace = shown.step(601)
    assert pace is not None
    assert pace.rate == pytest.approx(10.0)
    assert pace.remaining == pytest.approx(39.9)
    clock.now = 330.0
    assert shown.step(501) is None, "a run that went back has no rate"
