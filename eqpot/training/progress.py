"""What a run tells: a log file, and on a terminal a bar with the rate and the remaining time."""

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 10.0


def format_duration(seconds: float) -> str:
    """Return a duration as ``1 h 02 min``, ``3 min 20 s`` or ``4.2 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


class RunLog:
    """Lines for the screen and for ``train.log``, and the progress of the steps.

    Lines that come before :meth:`open` are kept and written first, so that nothing is created
    before the input is known to be sound.

    Parameters
    ----------
    silent
        Print and write nothing, as all processes but the first do.
    """

    def __init__(self, silent: bool = False) -> None:
        self.silent = silent
        self._console = Console(highlight=False, soft_wrap=True)
        self._file: TextIO | None = None
        self._early: list[str] = []
        self._progress: Progress | None = None
        self._started = self._last_line = time.monotonic()

    def open(self, path: Path) -> None:
        """Write the lines from here on, and those so far, to a file."""
        if self.silent:
            return
        self._file = path.open("w", encoding="utf-8")
        for line in self._early:
            self._file.write(line + "\n")
        self._file.flush()

    def line(self, text: str = "") -> None:
        """Print and write a line."""
        if self.silent:
            return
        if self._progress is not None:
            self._progress.console.print(text, markup=False)
        else:
            self._console.print(text, markup=False)
        if self._file is None:
            self._early.append(text)
        else:
            self._file.write(text + "\n")
            self._file.flush()

    def start_steps(self, n_steps: int) -> None:
        """Begin the progress of ``n_steps`` steps."""
        self._started = self._last_line = time.monotonic()
        if self.silent or not sys.stdout.isatty():
            return
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._progress.add_task("training", total=n_steps, rate="")
        self._progress.start()

    def step(self, done: int, n_steps: int, loss: float) -> None:
        """Tell that ``done`` steps are done: moves the bar, or prints a line now and then."""
        now = time.monotonic()
        rate = done / max(1e-9, now - self._started)
        if self._progress is not None:
            self._progress.update(self._task, completed=done, rate=f"{rate:.1f} steps/s")
        elif not self.silent and now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = format_duration((n_steps - done) / rate)
            self.line(f"step {done}/{n_steps}  loss {loss:.4g}  {rate:.1f} steps/s  {left} left")

    def stop_steps(self) -> None:
        """End the progress."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop_steps()
        if self._file is not None:
            if error is not None:
                self._file.write(f"ended by {type(error).__name__}: {error}\n")
            self._file.close()
            self._file = None
