"""How values lie in memory where code is compiled."""

import torch
from torch import Tensor


def written_out(values: Tensor, dim: int) -> Tensor:
    """Return a copy of the values, laid out as their shape says.

    In eager mode ``contiguous`` would do. Compiled code drops that: it computes what is cheap anew
    at each use, and picks numbers from a table one by one, in the order in which they are used. A
    concatenation it writes once, as it stands.

    Parameters
    ----------
    values
        Of up to three axes.
    dim
        The axis that is cut in two and joined again. With one element there is nothing to join, and
        compiled code does as it likes.
    """
    return torch.cat(values.chunk(2, dim=dim), dim=dim)
