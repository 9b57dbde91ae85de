"""A potential compiled ahead of time to machine code, by PyTorch's Inductor.

The network and its gradient are traced into one graph, whose loops are fused and compiled for this
kind of processor. What surrounds it, from edges to stress, stays the code of the potential. A
package is machine code: nothing here loads one unless its SHA-256 is given or it is trusted.
"""

import contextlib
import copy
import json
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Dict, Final, cast

import torch
from torch import Tensor, nn

from eqpot import keys
from eqpot.durable import write_durably
from eqpot.files import assemble, describe, dtype_of
from eqpot.models import GauntModel
from eqpot.models.known_gradient import KnownGradient
from eqpot.nn.neighbors import pad_edges
from eqpot.nn.radial_table import with_radial_tables
from eqpot.potential import Potential
from eqpot.program import ExplicitPotential, Program, open_source, read_trusted, verify

_FORMAT: Final = "eqpot-compiled"
_KEY: Final = "eqpot"
_LEAST: Final = 2
"""Atoms and slots in a call, at least: the compiler takes any number but 0 and 1 for a variable."""

Kernel = Callable[[Tensor, Tensor, Tensor], "list[Tensor]"]
"""Of vectors, neighbours and species: node energies, and the gradient of their sum to vectors."""


class CompiledModel(nn.Module):
    """A model whose energies and gradient come from compiled code.

    It takes the place of the model in a :class:`eqpot.potential.Potential`. The gradient is that
    of the sum of the energies, which is all that forces and stress need; there is no second one.

    Parameters
    ----------
    kernel
        The compiled code.
    r_max
        Radius, Å.
    """

    def __init__(self, kernel: Kernel, r_max: float) -> None:
        super().__init__()
        self.kernel = kernel
        self.r_max = r_max

    def forward(self, graph: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """Return ``node_energy``, as :meth:`eqpot.models.gaunt.GauntModel.forward` does.

        Parameters
        ----------
        graph
            ``species``, ``edge_index`` and ``edge_vectors``.
        """
        species = graph[keys.SPECIES]
        n_atoms = max(_LEAST, len(species))
        neighbors, vectors = pad_edges(
            graph[keys.EDGE_INDEX], graph[keys.EDGE_VECTORS], n_atoms, self.r_max, least=_LEAST
        )
        n_real = len(species)
        if n_real < n_atoms:  # atoms without neighbours fill up the least number
            species = torch.cat([species, species.new_zeros(n_atoms - n_real)])
        energies, gradient = self.kernel(vectors.detach(), neighbors, species)
        return {keys.NODE_ENERGY: KnownGradient.apply(vectors, energies[:n_real], gradient)}


def compile_potential(potential: Potential) -> Potential:
    """Return a potential that computes with machine code what the given one computes.

    Compiling takes half a minute to some minutes, once for all sizes of structures, and needs a C++
    compiler. The loops between matrix products use as many threads as PyTorch does now. In float32
    radial functions come from :class:`eqpot.nn.radial_table.RadialTable`. The result gives energies
    and their first derivatives and can't be trained.

    Parameters
    ----------
    potential
        A potential in memory; its weights are copied.

    Raises
    ------
    RuntimeError
        If there is no C++ compiler, or the compiled potential differs from the given one.
    TypeError
        If the model is of no family that files know.
    """
    description = describe(potential)
    with tempfile.TemporaryDirectory(prefix="eqpot-") as folder:
        package = Path(folder) / "potential.pt2"
        _compile(potential, package, {})
        compiled = _surround(_kernel(package), description, potential.anchor)
    verify(ExplicitPotential(compiled), potential)
    return compiled


def export_compiled(
    potential: Potential | str | Path, path: str | Path, dtype: str | torch.dtype = torch.float32
) -> dict[str, Any]:
    """Write a potential as compiled package, after it was compared with the original.

    The package serves structures of any size on processors of the present kind. It runs where the
    potential is: on the CPU, if that is a file.

    Parameters
    ----------
    potential
        A native file, or a potential in memory.
    path
        The file, ``name.pt2``.
    dtype
        In which the model runs; inputs and results are float64.

    Returns
    -------
    dict
        The metadata written, as of :func:`eqpot.export.export_torchscript`, with the processor
        that the code is for; and, not in the file, the largest difference seen.

    Raises
    ------
    OSError
        If a file cannot be read or written.
    RuntimeError
        If there is no C++ compiler, or the package differs from the potential; nothing is written
        then.
    ValueError
        If the native file is refused (see :func:`eqpot.files.load_potential`).
    """
    potential, metadata = open_source(potential, dtype_of(dtype), _FORMAT)
    metadata["device"] = potential.anchor.device.type
    metadata["processor"] = torch.backends.cpu.get_cpu_capability()
    metadata["n_threads"] = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="eqpot-") as folder:
        package = Path(folder) / "potential.pt2"
        _compile(potential, package, metadata)
        compiled = _surround(_kernel(package), metadata, potential.anchor)
        metadata["largest_difference"] = verify(ExplicitPotential(compiled), potential)
        write_durably(path, package.read_bytes())
    return metadata


def load_compiled(
    path: str | Path, *, sha256: str | None = None, trust: bool = False
) -> tuple[Program, dict[str, Any]]:
    """Return a compiled potential and its metadata.

    **Loading such a file runs machine code from it.**

    Parameters
    ----------
    path
        A file of :func:`export_compiled`.
    sha256
        SHA-256 of the file, from a source you trust.
    trust
        Load without a SHA-256, because you know where the file is from.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If neither ``sha256`` nor ``trust`` is given, the SHA-256 differs, the file is no such
        package, or it is for another kind of processor.
    """
    path = Path(path)
    data = read_trusted(path, sha256, trust, "a compiled package")
    with tempfile.TemporaryDirectory(prefix="eqpot-") as folder:
        # what was hashed is what is loaded, whatever becomes of the file
        package = Path(folder) / "potential.pt2"
        package.write_bytes(data)
        metadata = _metadata(path, package)
        try:
            kernel = _kernel(package)
        except RuntimeError as error:
            raise ValueError(
                f"{path}: torch {torch.__version__} cannot load this package, which torch "
                f"{metadata['torch_version']} made: {error}"
            ) from error
    model_dtype = dtype_of(metadata["dtype"])
    anchor = torch.zeros((), dtype=model_dtype, device=metadata["device"])
    return ExplicitPotential(_surround(kernel, metadata, anchor)), metadata


def _compile(potential: Potential, path: Path, metadata: dict[str, Any]) -> None:
    # the compiler's own modules, 800 of them, are imported only by those who compile
    from torch.fx.experimental.proxy_tensor import make_fx

    _check_compiler()
    model = copy.deepcopy(potential.model)
    if potential.anchor.dtype == torch.float32:
        model = with_radial_tables(model)
    model = model.eval().requires_grad_(False)
    assert isinstance(model, GauntModel)

    def kernel(vectors: Tensor, neighbors: Tensor, species: Tensor) -> tuple[Tensor, Tensor]:
        vectors = vectors.detach().requires_grad_(True)
        energies, _ = model.of_blocks(vectors, neighbors, species)
        (gradient,) = torch.autograd.grad([energies.sum()], [vectors])
        return energies.detach(), gradient

    # sizes that no other length in the model has: equal ones would be taken for one variable
    n_atoms, n_slots = 37, 23
    vectors = torch.ones(n_atoms, 3, n_slots).to(potential.anchor)
    neighbors = torch.zeros(n_atoms, n_slots, dtype=torch.long, device=vectors.device)
    inputs = (vectors, neighbors, neighbors[:, 0].contiguous())
    atoms = torch.export.Dim("n_atoms", min=_LEAST)
    slots = torch.export.Dim("n_slots", min=_LEAST)
    with torch.no_grad(), _without_deprecations():
        # gradients are traced first, since torch.export cannot: what it sees is one plain graph
        with torch.enable_grad():
            trace = make_fx(kernel, tracing_mode="symbolic", _allow_non_fake_inputs=True)
            graph = trace(*inputs)
        exported = torch.export.export(
            graph, inputs, dynamic_shapes=({0: atoms, 2: slots}, {0: atoms, 1: slots}, {0: atoms})
        )
        text = {_KEY: json.dumps(metadata, ensure_ascii=True)}
        torch._inductor.aoti_compile_and_package(
            exported,
            package_path=str(path),
            # a number known beforehand makes loops a third faster than one asked at run time
            inductor_configs={
                "cpp.threads": torch.get_num_threads(),
                "aot_inductor.metadata": text,
            },
        )


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise RuntimeError(
            "compiling a potential needs a C++ compiler, and none was found: install g++ or "
            "clang++, or name one in the environment variable CXX; packages that are compiled "
            "run without"
        ) from error


def _kernel(package: Path) -> Kernel:
    with _without_deprecations():
        return cast(Kernel, torch._inductor.aoti_load_package(str(package)))


@contextlib.contextmanager
def _without_deprecations() -> Iterator[None]:
    """Let no one read of what PyTorch's modules use that PyTorch deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _surround(kernel: Kernel, description: dict[str, Any], anchor: Tensor) -> Potential:
    """Return the potential around compiled code, in the type and on the device of a tensor."""
    model = CompiledModel(kernel, description["r_max"])
    return assemble(model, description).to(anchor).eval().requires_grad_(False)


def _metadata(path: Path, package: Path) -> dict[str, Any]:
    """Return the metadata of a package, read without loading its code."""
    try:
        with zipfile.ZipFile(package) as archive:
            names = [n for n in archive.namelist() if n.endswith(".wrapper_metadata.json")]
            found = json.loads(json.loads(archive.read(names[0]))[_KEY]) if names else {}
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{path}: is no compiled package that eqpot exported") from error
    if found.get("format") != _FORMAT:
        raise ValueError(f"{path}: is no compiled package that eqpot exported")
    assert isinstance(found, dict)
    present = torch.backends.cpu.get_cpu_capability()
    if found["processor"] != present:
        raise ValueError(
            f"{path}: was compiled for processors with {found['processor']}, this one has "
            f"{present}; export the potential on a machine like this one"
        )
    return found
