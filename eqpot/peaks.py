"""What a machine does at best: large matrix products, large copies, many small operations."""

from typing import Any, Final

import torch
from torch.utils.benchmark import Timer

_N_ROWS: Final = {"cpu": 1024, "cuda": 8192}  # large enough for the peak, small enough to be quick
_N_BYTES: Final = {"cpu": 2**27, "cuda": 2**30}  # beyond any cache
_SECONDS: Final = 0.5


def multiply_add_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Return multiply-adds per second of a large matrix product, with the threads in use.

    Parameters
    ----------
    dtype
        Of the matrices.
    device
        Where they are.
    """
    n_rows = _N_ROWS.get(device.type, 8192)
    matrix = torch.ones(n_rows, n_rows, dtype=dtype, device=device)
    out = torch.empty_like(matrix)
    return n_rows**3 / _least_seconds("torch.mm(matrix, matrix, out=out)", matrix=matrix, out=out)


def bandwidth(device: torch.device) -> float:
    """Return bytes per second that a large copy reads and writes, with the threads in use.

    Parameters
    ----------
    device
        Where the memory is.
    """
    n_bytes = _N_BYTES.get(device.type, 2**30)
    source = torch.ones(n_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * n_bytes / _least_seconds("target.copy_(source)", source=source, target=target)


def start_seconds(device: torch.device) -> float:
    """Return the seconds of an operation that has nothing to do, one of many in a row.

    Parameters
    ----------
    device
        That it runs on.
    """
    number = torch.ones(1, device=device)
    timer = Timer("torch.neg(number)", globals={"torch": torch, "number": number})
    return float(min(timer.timeit(1000).median for _ in range(5)))


def _least_seconds(statement: str, **names: Any) -> float:
    names["torch"] = torch
    timer = Timer(statement, globals=names, num_threads=torch.get_num_threads())
    timer.timeit(1)  # the first call allocates
    # the fastest: whatever else runs makes it slower, nothing makes it faster
    return float(min(timer.timeit(1).median for _ in range(_n_calls(timer))))


def _n_calls(timer: Timer) -> int:
    return max(3, min(1000, int(_SECONDS / timer.timeit(1).median)))
