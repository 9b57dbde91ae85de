"""Laws 18 and 41 for compiled code: it agrees with the potential, and none is loaded unasked."""

import functools
import hashlib
import json
import zipfile

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from torch.fx.experimental.proxy_tensor import make_fx

import eqpot.compilation
import eqpot.kernels.packaging
import laws
from agreement import assert_agrees, lone_and_few
from eqpot.calculators import ASECalculator
from eqpot.compilation import (
    CompiledPotential,
    compile_potential,
    export_compiled,
    load_compiled,
    read_compiled_metadata,
)
from eqpot.compiler import CompilationError, check_compiler, processor_of, without_deprecations
from eqpot.files import describe, save_potential
from eqpot.kernels.whole import ExplicitKernel
from eqpot.models import PRESETS
from eqpot.models.deployment import deployed
from eqpot.so3 import GauntProduct, SphereProduct
from potentials import random_potential, soft_potential
from strategies import ordinary_set

ORDINARY = ordinary_set()


def compiler_found():
    try:
        check_compiler()
    except CompilationError:
        return False
    return True


needs_compiler = pytest.mark.skipif(not compiler_found(), reason="no C++ compiler on this machine")


def explicit_kernel(potential):
    """Return what is compiled of a potential."""
    return ExplicitKernel(potential, deployed(potential.model, compiled=True))


def around(potential):
    """Return the potential around a kernel of the compiled signature that is not compiled."""
    kernel = explicit_kernel(potential)

    def checked(vectors, neighbors, incoming, species):
        assert len(neighbors) == len(species) == len(vectors) >= 2
        assert incoming.shape == neighbors.t().shape and incoming.is_contiguous()
        assert neighbors.shape[1] % 16 == 0 < neighbors.shape[1]
        assert vectors.dtype == torch.float64
        return kernel(vectors, neighbors, incoming, species)

    return CompiledPotential(checked, describe(potential), potential.anchor.device)


def check_laws(potential):
    rng = np.random.default_rng(1)
    for atoms in ORDINARY.values():
        laws.check_symmetry(potential, atoms, rng)
        laws.check_forces(potential, atoms, rng, n_directions=1)
    laws.check_stress(potential, ORDINARY["triclinic"])
    laws.check_extensivity(potential, bulk("Si"))
    laws.check_isolated_atoms(potential)
    laws.check_batch(potential, list(ORDINARY.values()))


def test_what_surrounds_the_code_computes_as_the_potential():
    potential = random_potential(repulsion=True)
    assert_agrees(around(potential), potential, 1e-14)
    check_laws(around(potential))


def test_the_calculator_gives_the_code_the_same_edges(monkeypatch):
    """Neighbours of own images, few atoms and none; anew, and from a list kept while atoms move."""
    potential = random_potential(repulsion=True)
    monkeypatch.setattr(eqpot.compilation, "_compile", lambda *_: None)
    monkeypatch.setattr(eqpot.compilation, "_kernel", lambda *_: around(potential).kernel)
    compiled, eager = ASECalculator(potential, compiled=True), ASECalculator(potential)
    for structure in [*ORDINARY.values(), *lone_and_few().values(), Atoms()]:
        atoms = structure.copy()
        for seed in range(3):
            for calculator in (compiled, eager):
                calculator.calculate(atoms)
            assert set(compiled.results) == set(eager.results)
            for name, expected in eager.results.items():
                found = compiled.results[name]
                np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12, err_msg=name)
            atoms.rattle(0.02, seed=seed)


def test_no_sum_of_the_code_adds_to_places_that_threads_share():
    kernel = explicit_kernel(random_potential(torch.float32, preset="medium", repulsion=True))
    vectors = torch.ones(5, 3, 16, dtype=torch.float64)
    slots = torch.zeros(5, 16, dtype=torch.long)
    with torch.enable_grad():
        graph = make_fx(kernel)(vectors, slots, slots.t().contiguous(), slots[:, 0].contiguous())
    shared = {"index_add", "index_put", "scatter_add", "scatter_reduce"}
    called = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    names = {str(operation).split(".")[1] for operation in called if "." in str(operation)}
    assert "bmm" in names and not names & shared


@needs_compiler
def test_the_compiler_writes_products_out():
    from torch._inductor.utils import fresh_cache, run_and_get_code

    from eqpot.so3 import lowering

    lowering.register()
    product = SphereProduct(2, 3, 1)
    written_out = GauntProduct(product)
    generator = torch.Generator().manual_seed(2)
    left = torch.randn(9, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    right = torch.randn(16, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)

    def results(function):
        found = function(left, right)
        return [found, *torch.autograd.grad(found.square().sum(), (left, right))]

    compiled = torch.compile(written_out, fullgraph=True, dynamic=True)
    with without_deprecations(), fresh_cache():  # the code in the cache may be older
        found, codes = run_and_get_code(results, compiled)
    for ours, expected in zip(found, results(product), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    assert codes
    assert not any("ops.eqpot" in code for code in codes)  # called, as unknown to the compiler


@pytest.fixture
def uncompiled(tmp_path, monkeypatch):
    """Return a package whose code is missing, with the metadata of an export."""

    def pack(potential, path, metadata):
        with zipfile.ZipFile(path, "w") as archive:
            name = "p/data/aotinductor/model/c.wrapper_metadata.json"
            archive.writestr(name, json.dumps({"eqpot": json.dumps(metadata)}))

    potential = soft_potential()
    monkeypatch.setattr(eqpot.compilation, "_compile", pack)
    monkeypatch.setattr(eqpot.compilation, "_kernel", lambda *_: around(potential).kernel)
    path = tmp_path / "p.pt2"
    save_potential(tmp_path / "p.eqpot", potential)
    export_compiled(tmp_path / "p.eqpot", path, "float64")
    return path


def test_metadata_is_read_before_the_code(uncompiled, monkeypatch):
    _, metadata = load_compiled(uncompiled, trust=True)
    assert metadata["elements"] == ["H", "C", "O", "Si"]
    assert (metadata["r_max"], metadata["dtype"], metadata["device"]) == (4.0, "float64", "cpu")
    assert len(metadata["native_sha256"]) == 64
    assert "largest_difference" not in metadata
    with monkeypatch.context() as later:
        later.setattr(eqpot.compilation, "_VERSION", 6)
        with pytest.raises(ValueError, match=r"p\.pt2: .* of version 5, this eqpot runs version 6"):
            load_compiled(uncompiled, trust=True)
        assert read_compiled_metadata(uncompiled) == metadata
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "OTHER")
    with pytest.raises(ValueError, match=r"p\.pt2: was compiled for .*this machine has OTHER"):
        load_compiled(uncompiled, trust=True)


def test_code_is_refused_by_a_processor_that_lacks_an_instruction(uncompiled, monkeypatch):
    found = read_compiled_metadata(uncompiled)["instructions"]
    assert "aes" not in found and all(isinstance(name, str) for name in found)

    def has(*names):
        capabilities = {"cpu_name": "one", "num_sockets": 1, "avx10_2": False, "aes": True}
        capabilities |= dict.fromkeys(names, True)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)

    has("new", *found)
    load_compiled(uncompiled, trust=True)
    has("new", *found[1:])
    if found:  # else this PyTorch tells none
        with pytest.raises(ValueError, match=f"for a processor with {found[0]}, which this one la"):
            load_compiled(uncompiled, trust=True)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    load_compiled(uncompiled, trust=True)


def test_code_of_a_gpu_is_for_its_compute_capability(monkeypatch):
    device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert processor_of(device) == "no GPU that PyTorch sees"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert processor_of(device) == "compute capability 9.0"


def test_nothing_is_loaded_unasked(uncompiled, monkeypatch):
    load_compiled(uncompiled, sha256=hashlib.sha256(uncompiled.read_bytes()).hexdigest())

    def never(*_):
        raise AssertionError("was loaded")

    monkeypatch.setattr(eqpot.compilation, "_kernel", never)
    with pytest.raises(ValueError, match="a program that runs"):
        load_compiled(uncompiled)
    with pytest.raises(ValueError, match="but the file has"):
        load_compiled(uncompiled, sha256="0" * 64)
    with zipfile.ZipFile(uncompiled, "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ValueError, match="no compiled package"):
        load_compiled(uncompiled, trust=True)
    uncompiled.write_bytes(b"no archive")
    for read in (functools.partial(load_compiled, trust=True), read_compiled_metadata):
        with pytest.raises(ValueError, match="no compiled package"):
            read(uncompiled)
        with pytest.raises(FileNotFoundError, match="no such file"):
            read(uncompiled.with_name("absent.pt2"))


def test_code_that_differs_is_not_written(uncompiled, tmp_path, monkeypatch):
    kernel = around(soft_potential()).kernel

    def spoiled(*_):
        return lambda *inputs: [1.001 * result for result in kernel(*inputs)]

    monkeypatch.setattr(eqpot.compilation, "_kernel", spoiled)
    with pytest.raises(RuntimeError, match="differs from the potential"):
        export_compiled(tmp_path / "p.eqpot", tmp_path / "other.pt2", "float64")
    assert not (tmp_path / "other.pt2").exists()


def test_a_missing_compiler_is_told(monkeypatch, tmp_path):
    import torch._inductor.cpp_builder as builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none():
        raise InvalidCxxCompiler()

    monkeypatch.setattr(builder, "get_cpp_compiler", none)
    with pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler"):
        export_compiled(soft_potential(), tmp_path / "p.pt2", "float64")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(
    ("preset", "changes", "n_threads"),
    [
        ("small", {}, 1),
        ("medium", {}, 2),
        ("large", {}, 1),
        ("small", {"n_layers": 3, "l_hidden": 2, "l_along": 2, "final_gate": False}, 2),
        ("small", {"l_hidden": 0}, 1),
        # two layers that differ in their weights alone
        ("small", {"n_layers": 4, "n_features": 8, "n_senders": 8, "l_max": 1}, 1),
    ],
    indirect=["n_threads"],
)
def test_compiled_code_obeys_the_laws_in_float64(preset, changes, n_threads):
    settings = PRESETS[preset].as_dict() | changes
    potential = random_potential(repulsion=True, **settings)
    compiled = compile_potential(potential)
    parts = in_small_chunks(compiled, potential)
    for variant in (compiled, parts):
        assert_agrees(variant, potential, 1e-12)
        check_laws(variant)


def in_small_chunks(compiled, potential):
    """Return a compiled potential that takes few atoms at a time."""
    kernel = compiled.kernel.in_small_chunks()
    return CompiledPotential(kernel, describe(potential), potential.anchor.device)


@pytest.mark.slow
@needs_compiler
def test_a_package_computes_as_the_potential_in_float32(tmp_path, monkeypatch):
    # all other code of these tests is compiled by processes side by side
    monkeypatch.setattr(eqpot.kernels.packaging, "_n_cores", lambda: 1)
    potential = soft_potential(torch.float32)
    save_potential(tmp_path / "p.eqpot", potential)
    metadata = export_compiled(tmp_path / "p.eqpot", tmp_path / "p.pt2", "float32")
    assert metadata["largest_difference"] <= 1e-5
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["p.eqpot", "p.pt2"]
    program = ASECalculator.from_compiled(tmp_path / "p.pt2", trust=True)
    in_chunks = ASECalculator.from_compiled(tmp_path / "p.pt2", trust=True)
    in_chunks._compiled.kernel = in_chunks._compiled.kernel.in_small_chunks()
    eager = ASECalculator(tmp_path / "p.eqpot")
    exact = ASECalculator(tmp_path / "p.eqpot", dtype="float64")
    for atoms in (*ORDINARY.values(), *lone_and_few().values()):
        if not set(atoms.numbers) <= set(potential.atomic_numbers):
            continue
        for calculator in (program, in_chunks, eager, exact):
            calculator.calculate(atoms)
        for name in ("energies", "forces", *(["stresses"] if atoms.pbc.all() else [])):
            truth = exact.results[name]
            *errors, usual = (
                np.abs(c.results[name] - truth).max() for c in (program, in_chunks, eager)
            )
            # rounding of sums in other orders: of the size of that of the potential itself
            assert max(errors) <= 3 * usual + 1e-6 * max(1.0, np.abs(truth).max()), name
