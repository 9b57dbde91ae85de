"""The end of a run by SIGINT or SIGTERM, which waits until the step is done."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class InterruptedRunError(RuntimeError):
    """A signal ended the run; it is saved and can go on.

    Parameters
    ----------
    number
        Of the signal.
    message
        Where the run stands.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.signal = number

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM, as shells have it."""
        return 128 + self.signal


class Signals:
    """Hold SIGINT and SIGTERM back until the step is done; a second one acts at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        # Python allows handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old.clear()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()
