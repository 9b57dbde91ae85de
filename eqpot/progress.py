"""What a long run shows: on a terminal a bar with rate and remaining time, else lines."""

import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES: Final = 10.0


@dataclass(frozen=True)
class Pace:
    """How fast the steps go."""

    rate: float
    """Steps per second."""
    remaining: float
    """Seconds until the last step at this rate."""


class StepProgress:
    """Lines on the screen, and the progress of steps.

    Parameters
    ----------
    label
        Stands before the bar.
    silent
        Print nothing.
    unit
        What a step is called where the rate is shown.
    leave_out_first
        Whether the rate is that of the steps after the first, which may compile.
    """

    def __init__(
        self,
        label: str,
        silent: bool = False,
        unit: str = "steps",
        leave_out_first: bool = False,
    ) -> None:
        self.label, self.silent, self.unit = label, silent, unit
        self.leave_out_first = leave_out_first
        self._console = Console(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._first = self._n_steps = 0
        self._in_first = False
        self._started = self._last_line = time.monotonic()

    def line(self, text: str = "") -> None:
        """Print a line, above the bar if there is one."""
        if not self.silent:
            self._console.print(text, markup=False)

    def start(self, n_steps: int, first: int = 0) -> None:
        """Begin the progress of ``n_steps`` steps, of which ``first`` are done."""
        self._first, self._n_steps = first, n_steps
        self._in_first = self.leave_out_first
        self._started = self._last_line = time.monotonic()
        if self.silent or first == n_steps or not sys.stdout.isatty():
            return
        self._bar = Progress(
            TextColumn(self.label),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task(self.label, total=n_steps, completed=first, state="")
        self._bar.start()

    def step(self, done: int, note: str = "") -> Pace | None:
        """Tell that ``done`` steps are done.

        Moves the bar, with the ``note`` behind the rate. Without a bar, returns the pace where a
        line is due, which is now and then.
        """
        if self.silent:
            return None
        now = time.monotonic()
        if self._in_first:
            self._in_first = False
            self._first, self._started, self._last_line = done, now, now
        if self._bar is None and now - self._last_line < _SECONDS_BETWEEN_LINES:
            return None
        rate = max(0, done - self._first) / max(1e-9, now - self._started)
        if self._bar is not None:
            shown = [f"{rate:.1f} {self.unit}/s"] * (rate > 0) + [note] * bool(note)
            self._bar.update(self._task, completed=done, state="  ".join(shown))
            return None
        if rate == 0.0:  # back where it began
            return None
        self._last_line = now
        return Pace(rate, (self._n_steps - done) / max(1e-9, rate))

    def stop(self) -> None:
        """End the progress."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> "StepProgress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
