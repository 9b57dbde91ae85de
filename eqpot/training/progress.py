"""What a training run tells: on the screen, and in a log file."""

import contextlib
from pathlib import Path
from types import TracebackType
from typing import TextIO

from eqpot.progress import StepProgress


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
        self._progress = StepProgress("training", silent, leave_out_first=True)
        self._file: TextIO | None = None
        self._early: list[str] = []

    @property
    def silent(self) -> bool:
        """Whether nothing is printed and written."""
        return self._progress.silent

    @silent.setter
    def silent(self, silent: bool) -> None:
        self._progress.silent = silent

    def open(self, path: Path) -> None:
        """Write the lines from here on, and those so far, to the end of a file."""
        if self.silent:
            return
        self._file = path.open("a", encoding="utf-8")
        for line in self._early:
            self._write(line)

    def line(self, text: str = "") -> None:
        """Print and write a line."""
        if self.silent:
            return
        self._progress.line(text)
        if self._file is None:
            self._early.append(text)
        else:
            self._write(text)

    def _write(self, text: str) -> None:
        assert self._file is not None
        try:
            self._file.write(text + "\n")
            self._file.flush()
        except OSError as error:
            raise OSError(f"{self._file.name}: cannot write a line: {error.strerror}") from error

    def start_steps(self, n_steps: int, first: int = 0) -> None:
        """Begin the progress of ``n_steps`` steps, of which ``first`` are done."""
        self._progress.start(n_steps, first)

    def step(self, done: int, n_steps: int, loss: float) -> None:
        """Tell that ``done`` steps are done: moves the bar, or prints a line now and then."""
        pace = self._progress.step(done)
        if pace is not None:
            left = format_duration(pace.remaining)
            self.line(
                f"step {done}/{n_steps}  loss {loss:.4g}  {pace.rate:.1f} steps/s  {left} left"
            )

    def stop_steps(self) -> None:
        """End the progress."""
        self._progress.stop()

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
            # on a full disk closing fails again; the first error is the one to tell
            with contextlib.suppress(OSError):
                if error is not None:
                    self._file.write(f"ended by {type(error).__name__}: {error}\n")
                self._file.close()
            self._file = None
