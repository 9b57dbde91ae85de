"""Compiled functions, called without Python's lock, so that threads run them side by side.

PyTorch's own objects around such code hold the lock while it runs
(https://github.com/pytorch/pytorch/issues/197516). Its C interface, made for programs in other
languages, does not need it.
"""

import _ctypes
import ctypes
import os
import tempfile
import weakref
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import torch
from torch import Tensor

_LIBRARIES: Final = (".so", ".pyd")
"""Suffixes of libraries in a package; each lies in a folder with the name of its function."""
_Pointer = ctypes.c_void_p


class Code:
    """A function of a package, compiled for the CPU.

    Parameters
    ----------
    library
        The shared library.

    Raises
    ------
    RuntimeError
        If it cannot be loaded.
    """

    def __init__(self, library: Path) -> None:
        handle, n_results = _Pointer(), ctypes.c_size_t()
        try:
            loaded = ctypes.CDLL(str(library))
            self._run = loaded.AOTInductorModelContainerRun
            create = loaded.AOTInductorModelContainerCreateWithDevice
            count = loaded.AOTInductorModelContainerGetNumOutputs
        except (OSError, AttributeError) as error:
            raise RuntimeError(f"{library.name}: {error}") from error
        tensors = (_Pointer, ctypes.c_size_t)
        self._run.argtypes = [_Pointer, *tensors, *tensors, _Pointer, _Pointer]
        # as many calls at once as there are cores; more wait for each other
        n_calls = ctypes.c_size_t(os.cpu_count() or 1)
        _check(create(ctypes.byref(handle), n_calls, b"cpu", None), "loaded")
        weakref.finalize(self, _unload, loaded, handle).atexit = False
        _check(count(handle, ctypes.byref(n_results)), "loaded")
        self._handle, self._n_results = handle, n_results.value

    def __call__(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return the results; nothing is checked of the inputs.

        Raises
        ------
        RuntimeError
            If the code fails.
        """
        capsules = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(inputs)
        given = (_Pointer * len(inputs))(*[_pointer_of(capsule, None) for capsule in capsules])
        found = (_Pointer * self._n_results)()
        status = self._run(self._handle, given, len(inputs), found, self._n_results, None, None)
        _check(status, "run")
        made = [_capsule_of(pointer, None, None) for pointer in found]
        results: list[Tensor] = torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs(made)
        return results


def load_codes(package: Path, names: Sequence[str]) -> dict[str, Code]:
    """Load the functions of a package, by name: **this runs machine code from it**.

    Parameters
    ----------
    package
        A file that :func:`eqpot.kernels.packaging.write_package` wrote.
    names
        Of the functions.

    Raises
    ------
    RuntimeError
        If a function is missing or cannot be loaded.
    """
    codes: dict[str, Code] = {}
    # a library that is loaded needs its file no more, but on Windows cannot be removed
    with (
        tempfile.TemporaryDirectory(prefix="eqpot-", ignore_cleanup_errors=True) as folder,
        zipfile.ZipFile(package) as archive,
    ):
        for member in archive.namelist():
            path = PurePosixPath(member)
            name = path.parent.name
            if name in names and path.suffix in _LIBRARIES:
                library = Path(folder) / f"{name}{path.suffix}"
                library.write_bytes(archive.read(member))
                codes[name] = Code(library)
    if missing := [name for name in names if name not in codes]:
        raise RuntimeError(f"the package has no function {', '.join(missing)}")
    return codes


def _prototype(name: str, result: type, *arguments: type) -> "ctypes._FuncPointer":
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_pointer_of = _prototype("PyCapsule_GetPointer", _Pointer, ctypes.py_object, ctypes.c_char_p)
_capsule_of = _prototype("PyCapsule_New", ctypes.py_object, _Pointer, ctypes.c_char_p, _Pointer)


def _unload(loaded: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
    loaded.AOTInductorModelContainerDelete(handle)
    if hasattr(_ctypes, "dlclose"):  # on Windows a library stays as long as the process
        _ctypes.dlclose(loaded._handle)


def _check(status: int, what: str) -> None:
    if status != 0:
        raise RuntimeError(f"compiled code could not be {what}; standard error says why")
