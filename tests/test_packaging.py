"""Functions are compiled side by side, each by a process, and by this one where that fails."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch._inductor.package.package as inductor_package

import eqpot.kernels.packaging as packaging
from eqpot.kernels.compiling import function_of, names_of
from eqpot.models.deployment import deployed
from potentials import random_potential


def facts(function, name, folder, metadata, device):
    """Return what there is to compile, in place of compiling it."""
    graph = function.graph
    constants = [getattr(graph, n.target) for n in graph.graph.nodes if n.op == "get_attr"]
    sums = [repr(float(constant.double().sum())) for constant in constants]
    dtypes = sorted({str(constant.dtype) for constant in constants})
    return [name, folder.name, str(device), *metadata.items(), len(function.inputs), sums, dtypes]


# the same in another process, which imports what this one can
STUB = """
import eqpot.kernels.packaging
import test_packaging
eqpot.kernels.packaging.compile_function = test_packaging.facts
"""
METADATA = {"text": "Å"}


@pytest.fixture
def written(monkeypatch):
    """Return what packages are made of, by path."""
    found = {}
    monkeypatch.setattr(inductor_package, "package_aoti", found.__setitem__)
    monkeypatch.setattr(packaging, "_n_cores", lambda: 2)
    imports = "from eqpot.kernels.packaging import"
    program = packaging._PROGRAM.replace(imports, f"{STUB}\n{imports}")
    monkeypatch.setattr(packaging, "_PROGRAM", program)
    return found


def expected(potential):
    found = {}
    for name in names_of(potential):
        function = function_of(potential, name)
        told = facts(function, name, Path(name), METADATA, potential.anchor.device)
        found[name] = json.loads(json.dumps(told))
    assert list(found) == ["whole", "back_0", "sums"]
    assert all(len(found[name][-2]) > 10 for name in ("whole", "back_0"))
    return found


def never(*_, **__):
    raise AssertionError("was called")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_function_is_compiled_by_a_process(dtype, written, tmp_path, monkeypatch):
    potential = random_potential(dtype, n_layers=1)
    monkeypatch.setattr(packaging, "compile_function", never)
    packaging.write_package(potential, tmp_path / "p.pt2", METADATA)
    assert written == {str(tmp_path / "p.pt2"): expected(potential)}


def other_constants():
    """Return a potential whose constants are not those that a file would give it."""
    return random_potential(torch.float32, n_layers=1).to(torch.float64)


def without_weights():
    potential = random_potential(n_layers=1)
    return potential.with_model(deployed(potential.model, compiled=True))


@pytest.mark.parametrize("make", [other_constants, without_weights])
def test_what_a_file_does_not_hold_is_compiled_here(make, written, tmp_path, monkeypatch):
    potential = make()
    monkeypatch.setattr(packaging, "_start", never)
    monkeypatch.setattr(packaging, "compile_function", facts)
    packaging.write_package(potential, tmp_path / "p.pt2", METADATA)
    assert written == {str(tmp_path / "p.pt2"): expected(potential)}


@pytest.mark.parametrize(
    ("program", "message"),
    [("raise SystemExit('it is so')", "'whole': it is so"), ("pass", "'whole': ")],
)
def test_where_processes_fail_this_one_compiles(program, message, written, tmp_path, monkeypatch):
    potential = random_potential(torch.float32, n_layers=1)
    monkeypatch.setattr(packaging, "_PROGRAM", program)
    monkeypatch.setattr(packaging, "compile_function", facts)
    with pytest.warns(UserWarning, match=f"one after the other, since .* failed: {message}"):
        packaging.write_package(potential, tmp_path / "p.pt2", METADATA)
    assert written == {str(tmp_path / "p.pt2"): expected(potential)}


def test_a_program_that_is_not_there_or_not_python_is_not_needed(written, tmp_path, monkeypatch):
    potential = random_potential(torch.float32, n_layers=1)
    monkeypatch.setattr(packaging, "compile_function", facts)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    with pytest.warns(UserWarning, match="No such file"):
        packaging.write_package(potential, tmp_path / "p.pt2", METADATA)
    for name in ("/usr/bin/engine", None):
        monkeypatch.setattr(sys, "executable", name)
        monkeypatch.setattr(packaging, "_start", never)
        packaging.write_package(potential, tmp_path / "p.pt2", METADATA)
    assert written == {str(tmp_path / "p.pt2"): expected(potential)}


SLEEP = "import time; time.sleep(60)"


def test_an_interrupt_leaves_no_process_behind(written, tmp_path, monkeypatch):
    started = []
    start = packaging._start

    def remembered(folder, name):
        started.append((folder, start(folder, name)))
        return started[-1][1]

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(packaging, "_PROGRAM", SLEEP)
    monkeypatch.setattr(packaging, "_start", remembered)
    monkeypatch.setattr(packaging.time, "sleep", interrupt)
    potential = random_potential(torch.float32, n_layers=1)
    with pytest.raises(KeyboardInterrupt):
        packaging.write_package(potential, tmp_path / "p.pt2", METADATA)
    assert len(started) == 2
    assert all(process.returncode not in (None, 0) for _, process in started)
    assert not any(folder.exists() for folder, _ in started)
    assert list(tmp_path.iterdir()) == [] and not written


def test_a_process_ends_with_the_one_that_started_it():
    program = f"""
import threading, eqpot.kernels.packaging as packaging
threading.Thread(target=packaging._end_with_parent, daemon=True).start()
{SLEEP}"""
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    time.sleep(0.1)
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(50) == 1
