"""From a potential to a package of its compiled functions, which are compiled side by side.

Most of the work is Python's, which threads would do one after the other. So each function has a
process of its own: this module, run with a folder and the name of the function.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Final

import torch

from eqpot.compiler import without_deprecations
from eqpot.files import load_potential, save_potential
from eqpot.kernels.compiling import compile_function, function_of, names_of
from eqpot.potential import Potential

_POTENTIAL: Final = "potential.eqpot"
_TASK: Final = "task.json"
_PAUSE: Final = 0.05
"""Seconds between looks at whether a process has ended."""


def write_package(
    potential: Potential, path: Path, metadata: dict[str, str], n_processes: int | None = None
) -> None:
    """Compile the functions of a potential, and write them to a package.

    Parameters
    ----------
    potential
        Of a family that files know.
    path
        The file.
    metadata
        Texts that are to stand in it.
    n_processes
        How many functions are compiled at once; by default one for each core.

    Raises
    ------
    CompilationError
        If a function cannot be compiled.
    """
    from torch._inductor.package.package import package_aoti

    names = names_of(potential)
    n_processes = min(len(names), n_processes or _n_cores())
    files: Any = {}
    if n_processes > 1 and sys.executable and not hasattr(sys, "frozen"):
        files = _by_processes(potential, names, metadata, n_processes)
    for name in names:
        if name not in files:
            files[name] = _compiled(potential, name, metadata)
    package_aoti(str(path), files)


def _compiled(potential: Potential, name: str, metadata: dict[str, str]) -> list[str]:
    with torch.no_grad(), without_deprecations():
        function = function_of(potential, name)
        return compile_function(function, name, metadata, potential.anchor.device)


def _n_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _by_processes(
    potential: Potential, names: list[str], metadata: dict[str, str], n_processes: int
) -> dict[str, list[str]]:
    """Return the files of functions, each compiled by a process, so many of them at once.

    Where a process fails they are few: the same in this process tells why, or succeeds.
    """
    environment = os.environ | {
        # what this process imports the others find too, and nothing else in the working directory
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # else each would start processes of its own
    }
    command = [sys.executable, "-P", "-m", __name__]
    waiting = list(names)
    running: dict[str, subprocess.Popen[bytes]] = {}
    files: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="eqpot-") as folder:
        _write_task(Path(folder), potential, metadata)
        try:
            while waiting or running:
                while waiting and len(running) < n_processes:
                    name = waiting.pop(0)
                    running[name] = subprocess.Popen(
                        [*command, folder, name],
                        env=environment,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                time.sleep(_PAUSE)
                for name in [n for n, process in running.items() if process.poll() is not None]:
                    status = running.pop(name).returncode
                    if status == 0:
                        files[name] = json.loads(_result(Path(folder), name).read_bytes())
                    else:
                        warnings.warn(
                            f"the process that compiled {name!r} ended with {status}; what is left "
                            "is compiled without others, one function after the other",
                            stacklevel=3,
                        )
                        waiting = []
        finally:
            for process in running.values():
                process.kill()
                process.wait()
    return files


def _write_task(folder: Path, potential: Potential, metadata: dict[str, str]) -> None:
    save_potential(folder / _POTENTIAL, potential)
    dtype = str(potential.anchor.dtype).removeprefix("torch.")
    task = {"dtype": dtype, "metadata": metadata}
    (folder / _TASK).write_text(json.dumps(task), encoding="utf-8")


def _result(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _main(folder: Path, name: str) -> None:
    """Compile a function, and write the list of its files."""
    torch.set_num_threads(1)
    gc.disable()  # takes a tenth of the time of a process that ends soon
    task = json.loads((folder / _TASK).read_bytes())
    potential = load_potential(folder / _POTENTIAL, task["dtype"])
    files = _compiled(potential, name, task["metadata"])
    _result(folder, name).write_text(json.dumps(files), encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
