"""How the C library keeps memory between steps."""

import torch

_BLOCK = 31 * 2**20  # bytes; glibc looks at blocks of up to 32 MiB


def keep_freed_memory() -> None:
    """Let the allocator of the process keep tens of megabytes that are freed, for the next step.

    At each step tensors of some megabytes come and go. By default glibc returns such blocks to the
    system when they are freed, and every page is cleared and mapped anew at the next step, which
    costs up to a third of the time. It learns from what is freed: after one block of this size it
    keeps up to twice as much. No option is set, and where there is no glibc nothing happens.
    """
    torch.empty(_BLOCK, dtype=torch.uint8)  # never touched, so it takes no memory itself
