"""The hook after each step for trainers built on Lightning."""

from collections.abc import Callable
from typing import Any, ClassVar

from lightning.pytorch.callbacks import Callback


class Steps(Callback):
    """Calls ``on_step`` after each step of the optimizer."""

    def __init__(self, on_step: Callable[[], None]) -> None:
        self._on_step = on_step

    def on_train_batch_end(self, *_: Any) -> None:
        """Tell."""
        self._on_step()


class NamedSteps(Steps):
    """The same for a trainer that makes its callbacks from the names of their classes."""

    told: ClassVar[Callable[[], None]]

    def __init__(self) -> None:
        super().__init__(type(self).told)
