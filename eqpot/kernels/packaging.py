"""From a potential to a package of its compiled functions, which are compiled side by side.

Most of the work is Python's, which threads would do one after the other. So on the CPU processes
do it, each a function.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any, Final

import torch

from eqpot.compiler import without_deprecations
from eqpot.files import load_potential, save_potential
from eqpot.kernels.compiling import compile_function, function_of, names_of
from eqpot.potential import Potential

MOST: Final = 4
"""Processes, at most. More gain little, since one function takes a third of the work."""
_PAUSE: Final = 0.05
"""Seconds between looks at whether a process has ended."""
_POTENTIAL: Final = "potential.eqpot"
_TASK: Final = "task.json"
_PROGRAM: Final = f"""
import json, pathlib, sys
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
task = json.loads((folder / {_TASK!r}).read_bytes())
sys.path[:] = task["path"]
from eqpot.kernels.packaging import compile_in_process
compile_in_process(folder, name, task["dtype"], task["metadata"])
"""


def write_package(potential: Potential, path: Path, metadata: dict[str, str]) -> None:
    """Compile the functions of a potential, several at once, and write a package of them.

    Parameters
    ----------
    potential
        Of a family that files know.
    path
        The file.
    metadata
        Texts that are to stand in it.

    Raises
    ------
    CompilationError
        If a function cannot be compiled.
    OSError
        If the file cannot be written.
    """
    from torch._inductor.package.package import package_aoti

    names = names_of(potential)
    n_processes = min(len(names), _n_cores(), MOST)
    files: Any = {}
    with tempfile.TemporaryDirectory(prefix="eqpot-") as text:
        folder = Path(text)
        if n_processes > 1 and _is_python(sys.executable) and _is_saved(potential, folder):
            _run_processes(folder, names, metadata, potential.anchor.dtype, n_processes)
        for name in names:
            if not _list_of(folder, name).exists():
                _compile(potential, folder, name, metadata)
            files[name] = json.loads(_list_of(folder, name).read_bytes())
        package_aoti(str(path), files)


def compile_in_process(folder: Path, name: str, dtype: str, metadata: dict[str, str]) -> None:
    """Compile a function; the process ends when the one that started it does.

    Parameters
    ----------
    folder
        Where the potential is, and the files go.
    name
        Of the function.
    dtype
        In which the model runs.
    metadata
        Texts that are to stand in the package.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    gc.disable()  # takes a tenth of the time of a process that ends soon
    _compile(load_potential(folder / _POTENTIAL, dtype), folder, name, metadata)


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # ends when the other end of the pipe is closed
    os._exit(1)


def _compile(potential: Potential, folder: Path, name: str, metadata: dict[str, str]) -> None:
    """Compile a function, and write the list of its files."""
    with torch.no_grad(), without_deprecations():
        function = function_of(potential, name)
        # in a folder of its own: the compiler names files by code, which layers may have in common
        own = folder / name
        files = compile_function(function, name, own, metadata, potential.anchor.device)
    unfinished = folder / f"{name}.unfinished"
    unfinished.write_text(json.dumps(files), encoding="utf-8")
    unfinished.replace(_list_of(folder, name))


def _list_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _n_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _is_python(executable: str | None) -> bool:
    """Return whether a program is Python, and not one that has Python inside."""
    return executable is not None and Path(executable).stem.lower().startswith("python")


def _is_saved(potential: Potential, folder: Path) -> bool:
    """Save a potential, and return whether the file gives the same one, bit by bit.

    One in memory may have constants of another type than those that a file is given.
    """
    try:
        save_potential(folder / _POTENTIAL, potential)
        same = load_potential(folder / _POTENTIAL, potential.anchor.dtype)
    except ValueError:  # deployed already
        return False
    tensors, others = (
        {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for module in (potential, same)
    )
    return tensors.keys() == others.keys() and all(
        tensor.dtype == others[name].dtype and torch.equal(tensor, others[name])
        for name, tensor in tensors.items()
    )


def _run_processes(
    folder: Path, names: list[str], metadata: dict[str, str], dtype: torch.dtype, n_processes: int
) -> None:
    """Let processes compile functions, so many at once; if one fails, no more are started.

    What they leave undone is for this process, which then fails too and tells why, or does not.
    """
    task = {
        "path": [str(entry) for entry in sys.path],
        "dtype": str(dtype).removeprefix("torch."),
        "metadata": metadata,
    }
    (folder / _TASK).write_text(json.dumps(task), encoding="utf-8")
    waiting = list(names)
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < n_processes:
                name = waiting.pop(0)
                running[name] = _start(folder, name)
            time.sleep(_PAUSE)
            for name in [n for n, process in running.items() if process.poll() is not None]:
                running.pop(name).communicate()
                if not _list_of(folder, name).exists():
                    said = _said_by(folder, name).read_text(encoding="utf-8", errors="replace")
                    raise ChildProcessError(f"{name!r}: {said.strip()[-500:]}")
    except OSError as error:
        warnings.warn(
            "the functions of the potential are compiled one after the other, since a process for "
            f"one of them failed: {error}",
            stacklevel=2,
        )
    finally:
        for process in running.values():
            process.kill()
        for process in running.values():
            process.communicate()


def _start(folder: Path, name: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", "-c", _PROGRAM, str(folder), name]
    # each would start processes of its own
    environment = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
    with _said_by(folder, name).open("wb") as said:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=said, stderr=said
        )


def _said_by(folder: Path, name: str) -> Path:
    return folder / f"{name}.txt"
