"""Functions are compiled side by side, each by a process, and by this one where that fails."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch._inductor.package.package as inductor_package

import eqpot.kernels.packaging as packaging
from eqpot.kernels.compiling import function_of, names_of
from potentials import random_potential

# in a process that finds it, compiling is telling what was to be compiled
STUB = """
import torch
import eqpot.kernels.compiling as compiling

def compile_function(function, name, metadata, device):
    with open(metadata["seen"], "a") as seen:
        seen.write(name + "\\n")
    return [name, str(len(function.inputs)), str(function.inputs[-1].dtype), metadata["other"]]

compiling.compile_function = compile_function
"""


@pytest.fixture
def potential():
    return random_potential(torch.float32, n_layers=1)


@pytest.fixture
def written(monkeypatch):
    """Return what packages were made of, by path."""
    found = {}
    monkeypatch.setattr(inductor_package, "package_aoti", found.__setitem__)
    return found


def test_each_function_is_compiled_by_a_process(potential, written, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(STUB)
    monkeypatch.syspath_prepend(tmp_path)
    metadata = {"seen": str(tmp_path / "seen"), "other": "Å"}
    packaging.write_package(potential, tmp_path / "p.pt2", metadata, n_processes=2)
    expected = {}
    for name in names_of(potential):
        inputs = function_of(potential, name).inputs
        expected[name] = [name, str(len(inputs)), str(inputs[-1].dtype), "Å"]
    assert written == {str(tmp_path / "p.pt2"): expected}
    assert sorted((tmp_path / "seen").read_text().split()) == sorted(expected)
    assert list(expected) == ["whole", "back_0", "sums"]


def test_where_processes_fail_this_one_compiles(potential, written, tmp_path, monkeypatch):
    monkeypatch.setattr(packaging, "__name__", "eqpot.there_is_no_such_module")
    monkeypatch.setattr(packaging, "compile_function", lambda _, name, *rest: [name])
    with pytest.warns(UserWarning, match="ended with 1; what is left is compiled without others"):
        packaging.write_package(potential, tmp_path / "p.pt2", {}, n_processes=2)
    names = names_of(potential)
    assert written == {str(tmp_path / "p.pt2"): {name: [name] for name in names}}


def test_an_interrupt_leaves_no_process_behind(potential, tmp_path, monkeypatch):
    started, folders = [], []
    start = subprocess.Popen

    def remembered(command, **options):
        folders.append(Path(command[-2]))
        started.append(start([sys.executable, "-c", "import time; time.sleep(60)"], **options))
        return started[-1]

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(packaging.subprocess, "Popen", remembered)
    monkeypatch.setattr(packaging.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        packaging.write_package(potential, tmp_path / "p.pt2", {}, n_processes=2)
    assert len(started) == 2
    assert all(process.returncode not in (None, 0) for process in started)
    assert not any(folder.exists() for folder in folders)
    assert list(tmp_path.iterdir()) == []
