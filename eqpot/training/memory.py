"""Memory: a limit on what the process may take, and how the lack of it is told."""

import contextlib
import re
from collections.abc import Iterator
from typing import Final

import torch

_SIZES: Final = {
    "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
    "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30, "tib": 2.0**40,
}  # fmt: skip
_CPU_MESSAGES: Final = ("DefaultCPUAllocator", "bad_alloc", "Cannot allocate memory")


def parse_size(text: str) -> int:
    """Return a number of bytes from ``"8 GB"``, ``"512 MiB"`` and the like.

    Raises
    ------
    ValueError
        If the text is no size above zero.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]+)\s*", text)
    size = float(match[1]) * _SIZES.get(match[2].lower(), 0.0) if match is not None else 0.0
    if size < 1.0:
        raise ValueError(f'must be a size such as "8 GB" or "512 MiB", got {text!r}')
    return int(size)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory, of the device or of the host, did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_MESSAGES)


@contextlib.contextmanager
def limited_memory(n_bytes: int | None) -> Iterator[None]:
    """Limit the data that this process may hold; what exceeds the limit raises.

    Without a limit a process that takes too much is killed by the system, which nothing can
    answer. The limit is that of the system (``RLIMIT_DATA``) and is lifted at the end.

    Parameters
    ----------
    n_bytes
        The limit; ``None`` for none.

    Raises
    ------
    ValueError
        If the process holds more already, or the system knows no such limit.
    """
    if n_bytes is None:
        yield
        return
    try:
        import resource
    except ImportError as error:
        raise ValueError("`training.memory_limit` is not possible on this system") from error
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    held = _held_bytes()
    if held is not None and held > n_bytes:
        raise ValueError(
            f"`training.memory_limit` must be above what the process holds before training, "
            f"{held / 1e9:.2f} GB, got {n_bytes / 1e9:.2f} GB"
        )
    resource.setrlimit(resource.RLIMIT_DATA, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _held_bytes() -> int | None:
    """Return what counts against the limit, where the system tells (Linux)."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123
            for line in file:
                if line.startswith("VmData:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    return None
