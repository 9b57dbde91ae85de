"""The C++ compiler that PyTorch's compiler needs, and the processor that its code is for."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Final

import torch

_NOT_OF_ARITHMETIC: Final = {"aes", "clflush", "clflushopt", "clwb", "sha", "sse4a"}


class CompilationError(RuntimeError):
    """Code could not be compiled, or computes something else than what it was made of."""


def check_compiler() -> None:
    """Check that there is a C++ compiler.

    Raises
    ------
    CompilationError
        If there is none.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise CompilationError(
            "compiling needs a C++ compiler, and none was found: install g++ or clang++, or name "
            "one in the environment variable CXX; code that is not compiled runs without, and so "
            "do packages that were compiled elsewhere"
        ) from error


def processor_of(device: torch.device) -> str:
    """Return the kind of a device as code for it has to know it, such as ``"AVX512"``."""
    if device.type == "cpu":
        return torch.backends.cpu.get_cpu_capability()
    if not torch.cuda.is_available():
        return "no GPU that PyTorch sees"
    return "compute capability {}.{}".format(*torch.cuda.get_device_capability(device))


def instructions() -> list[str]:
    """Return the instructions that code compiled on this machine may use, by PyTorch's names.

    The compiler takes what the processor has, which is more than the name of its kind says. Without
    :func:`torch.cpu.get_capabilities`, as in PyTorch 2.10, nothing is known and the list is empty.
    """
    tell = getattr(torch.cpu, "get_capabilities", dict)
    return sorted(n for n, has in tell().items() if has is True and n not in _NOT_OF_ARITHMETIC)


@contextlib.contextmanager
def without_deprecations() -> Iterator[None]:
    """Let no one read of what PyTorch's modules use that PyTorch deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield
