"""How values lie in memory where code is compiled."""

import torch
from torch import Tensor


def written_out(values: Tensor, dim: int) -> Tensor:
    """Return the values, laid out as their shape says.

    In eager mode this is ``contiguous``. Compiled code drops that: it computes what is cheap anew
    at each use, and picks numbers from a table one by one, in the order in which they are used. A
    concatenation it writes once, as it stands.

    Parameters
    ----------
    values
        Any tensor.
    dim
        The axis that is cut in two and joined again, so it should have more than one element.
    """
    return torch.cat(values.chunk(2, dim=dim), dim=dim)
