"""The C++ compiler that PyTorch's compiler needs."""

import contextlib
import warnings
from collections.abc import Iterator


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


@contextlib.contextmanager
def without_deprecations() -> Iterator[None]:
    """Let no one read of what PyTorch's modules use that PyTorch deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield
