"""A potential compiled ahead of time to machine code, by PyTorch's Inductor.

From edge vectors to energies and forces all is traced into one graph, whose loops are fused and
compiled for this kind of processor. A package is machine code: nothing here loads one unless its
SHA-256 is given or it is trusted.
"""

import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Dict, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eqpot import keys
from eqpot.compiler import check_compiler, without_deprecations
from eqpot.durable import write_durably
from eqpot.files import describe, dtype_of
from eqpot.graph import Graph
from eqpot.missing import missing_file
from eqpot.models import GauntModel
from eqpot.models.deployment import deployed
from eqpot.nn.neighbors import incoming_slots, incoming_sums, pad_edges
from eqpot.potential import (
    Potential,
    edge_vectors,
    known_species,
    species_table,
    stress_of,
    virial_of,
)
from eqpot.program import ExplicitPotential, Program, open_source, read_trusted, verify

_FORMAT: Final = "eqpot-compiled"
_VERSION: Final = 4
"""Of what the code takes; 1: vectors in the type of the model; 2: any number of slots; 3: no
incoming slots, so that sums over the edges to an atom were left to the caller."""
_KEY: Final = "eqpot"
_LEAST: Final = 2
"""Atoms and slots in a call, at least: the compiler takes any number but 0 and 1 for a variable."""
SLOTS: Final = 16
"""Numbers of slots are multiples of it: rows fill vector registers and lines of the cache."""

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor], "list[Tensor]"]
"""Such as :class:`ExplicitKernel`, compiled."""


class CompiledPotential(nn.Module):
    """A potential that is called like :class:`eqpot.potential.Potential` and runs compiled code.

    Parameters
    ----------
    kernel
        The compiled code, see :class:`ExplicitKernel`.
    description
        What :func:`eqpot.files.describe` says of the potential.
    device
        Where the code runs.
    multiple
        Of which the numbers of slots are that it takes.
    """

    species_of: Tensor

    def __init__(
        self,
        kernel: Kernel,
        description: dict[str, Any],
        device: torch.device,
        multiple: int = SLOTS,
    ) -> None:
        super().__init__()
        self.kernel, self.multiple = kernel, multiple
        self.r_max: float = description["r_max"]
        self.atomic_numbers: list[int] = description["atomic_numbers"]
        self.reference_energies: list[float] = description["reference_energies"]
        self.register_buffer("species_of", species_table(self.atomic_numbers).to(device))

    def forward(self, graph: Graph, training: bool = False) -> Dict[str, Tensor]:
        """Return what :meth:`eqpot.potential.Potential.forward` does, but for ``node_features``.

        Parameters
        ----------
        graph
            As there.
        training
            Keep the graph of the results, if the kernel has one.

        Raises
        ------
        ValueError
            If an element is unknown, or as :meth:`of_edges`.
        """
        edge_index, batch = graph[keys.EDGE_INDEX], graph[keys.BATCH]
        species = known_species(self.species_of, graph[keys.ATOMIC_NUMBERS])
        positions = graph[keys.POSITIONS].to(torch.float64)
        cell = graph[keys.CELL].to(torch.float64)
        vectors = edge_vectors(positions, cell, edge_index, graph[keys.EDGE_SHIFTS], batch)
        node_energy, forces, node_virial = self.of_edges(edge_index, vectors, species, training)
        virial = virial_of(node_virial, cell, batch)
        return {
            keys.ENERGY: node_energy.new_zeros(len(cell)).index_add(0, batch, node_energy),
            keys.NODE_ENERGY: node_energy,
            keys.FORCES: forces,
            keys.STRESS: stress_of(virial, cell),
            keys.VIRIAL: virial,
            keys.NODE_VIRIAL: node_virial,
        }

    def of_edges(
        self, edge_index: Tensor, vectors: Tensor, species: Tensor, training: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``node_energy``, ``forces`` and ``node_virial``.

        Parameters
        ----------
        edge_index
            Shape (2, n_edges), centres ascending.
        vectors
            Of the edges, shape (n_edges, 3), Å, float64.
        species
            Shape (n_atoms,).
        training
            As for :meth:`forward`.

        Raises
        ------
        ValueError
            If an atom has another number of edges from it than to it.
        """
        neighbors, blocks, slots = pad_edges(
            edge_index, vectors, len(species), self.r_max, self.multiple
        )
        incoming = incoming_slots(edge_index, slots, neighbors)
        return self.of_blocks(blocks, neighbors, incoming, species, training)

    def of_blocks(
        self,
        vectors: Tensor,
        neighbors: Tensor,
        incoming: Tensor,
        species: Tensor,
        training: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what :meth:`of_edges` does, of edges in blocks.

        Nothing is checked: the code reads where the neighbours and incoming slots point.

        Parameters
        ----------
        vectors, neighbors, incoming, species
            As :class:`ExplicitKernel`; ``n_slots`` a multiple of :attr:`multiple`.
        training
            As for :meth:`forward`.
        """
        n_atoms, n_slots = neighbors.shape
        if n_atoms < _LEAST:  # atoms without neighbours fill up the least number
            more = _LEAST - n_atoms
            vectors = F.pad(vectors, (0, 0, 0, 0, 0, more), value=2.0 * self.r_max)
            neighbors, species = F.pad(neighbors, (0, 0, 0, more)), F.pad(species, (0, more))
            incoming = F.pad(incoming, (0, more), value=n_atoms * n_slots)
        parts = self.kernel(vectors, neighbors, incoming, species)
        energies, forces, virials = (
            part[:n_atoms] if training else part[:n_atoms].detach() for part in parts
        )
        return energies, forces, virials.view(-1, 3, 3)


class ExplicitKernel(nn.Module):
    """The part of a potential that is compiled, to be traced.

    It takes neighbours in slots: edge vectors, Å, float64, shape (n, 3, j), and neighbours (n, j)
    of :func:`eqpot.nn.neighbors.pad_edges`; and (j, n) of
    :func:`eqpot.nn.neighbors.incoming_slots`; these two, and species (n,), are int64. It returns of
    each atom, in float64: energies, eV, shape (n,); forces, eV/Å, shape (n, 3); and its part of the
    virial, eV, shape (n, 9).

    Parameters
    ----------
    potential
        In memory.
    model
        That of the potential, or one that computes the same.
    learning
        Whether a loss of the results can be differentiated.
    """

    def __init__(self, potential: Potential, model: GauntModel, learning: bool = False) -> None:
        super().__init__()
        self.model, self.repulsion, self.learning = model, potential.repulsion, learning
        self.scale, self.dtype = potential.scale, potential.anchor.dtype
        reference_energies = torch.tensor(potential.reference_energies, dtype=torch.float64)
        self.reference_energies = reference_energies.to(potential.anchor.device)

    def forward(
        self, vectors: Tensor, neighbors: Tensor, incoming: Tensor, species: Tensor
    ) -> list[Tensor]:
        """Return energies, forces and virials."""
        vectors = vectors.detach().requires_grad_(True)
        energies, _ = self.model.of_blocks(vectors.to(self.dtype), neighbors, species, incoming)
        energies = self.reference_energies[species] + self.scale * energies.to(torch.float64)
        if self.repulsion is not None:
            ends = species[:, None].expand_as(neighbors), species[neighbors]
            pairs = self.repulsion.pair_energies(*ends, vectors.transpose(1, 2))
            energies = energies + pairs.sum(dim=1).to(torch.float64)
        (gradient,) = torch.autograd.grad([energies.sum()], [vectors], create_graph=self.learning)
        # in rows of what an edge brings, which are summed as a whole; each apart, since a view of
        # one product of them all would hang on strides that tracing guesses
        turned = gradient.transpose(1, 2)
        virials = [-vectors[:, a, :, None] * turned for a in range(3)]
        shares = torch.cat([-turned, *virials], dim=2)
        sums = incoming_sums(shares, neighbors, incoming)
        results = [energies, gradient.sum(dim=2) + sums[:, :3], sums[:, 3:]]
        return results if self.learning else [result.detach() for result in results]


def explicit_kernel(potential: Potential) -> ExplicitKernel:
    """Return the kernel of a potential that does not learn; its model is copied."""
    assert isinstance(potential.model, GauntModel)
    return ExplicitKernel(potential, deployed(potential.model, compiled=True))


def compile_potential(potential: Potential) -> CompiledPotential:
    """Return a potential that computes with machine code what the given one computes.

    Compiling takes half a minute to some minutes, once for all sizes of structures, and needs a C++
    compiler. The loops between matrix products use as many threads as PyTorch does now. The model
    is that of :func:`eqpot.models.deployment.deployed`; the result can't be trained.

    Parameters
    ----------
    potential
        A potential in memory; its weights are copied.

    Raises
    ------
    CompilationError
        If there is no C++ compiler.
    ExportError
        If the compiled potential differs from the given one or cannot be compared with it.
    TypeError
        If the model is of no family that files know.
    """
    description = describe(potential)
    with tempfile.TemporaryDirectory(prefix="eqpot-") as folder:
        package = Path(folder) / "potential.pt2"
        _compile(potential, package, {})
        compiled = CompiledPotential(_kernel(package), description, potential.anchor.device)
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
    CompilationError
        If there is no C++ compiler.
    ExportError
        If the package differs from the potential or cannot be compared with it; nothing is written.
    ValueError
        If the native file is refused (see :func:`eqpot.files.load_potential`).
    """
    potential, metadata = open_source(potential, dtype_of(dtype), _FORMAT)
    metadata["device"] = potential.anchor.device.type
    metadata["processor"] = torch.backends.cpu.get_cpu_capability()
    metadata["n_threads"] = torch.get_num_threads()
    metadata["format_version"] = _VERSION
    with tempfile.TemporaryDirectory(prefix="eqpot-") as folder:
        package = Path(folder) / "potential.pt2"
        _compile(potential, package, metadata)
        compiled = CompiledPotential(_kernel(package), metadata, potential.anchor.device)
        metadata["largest_difference"] = verify(ExplicitPotential(compiled), potential)
        write_durably(path, package.read_bytes())
    return metadata


def load_compiled(
    path: str | Path, *, sha256: str | None = None, trust: bool = False
) -> tuple[Program, dict[str, Any]]:
    """Return a compiled potential and its metadata.

    **Loading such a file runs machine code from it.** It refuses lists that lack an edge in one of
    its two directions.

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
        _check_runs(path, metadata)
        try:
            kernel = _kernel(package)
        except RuntimeError as error:
            raise ValueError(
                f"{path}: torch {torch.__version__} cannot load this package, which torch "
                f"{metadata['torch_version']} made: {error}"
            ) from error
    compiled = CompiledPotential(kernel, metadata, torch.device(metadata["device"]))
    return ExplicitPotential(compiled), metadata


def read_compiled_metadata(path: str | Path) -> dict[str, Any]:
    """Return the metadata of a compiled package, of any version. None of its code is loaded.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If the file is no such package.
    """
    path = Path(path)
    return _metadata(path, path)


def _metadata(path: Path, package: Path) -> dict[str, Any]:
    """Return the metadata of a package; messages name the path."""
    try:
        with zipfile.ZipFile(package) as archive:
            names = [n for n in archive.namelist() if n.endswith(".wrapper_metadata.json")]
            found = json.loads(json.loads(archive.read(names[0]))[_KEY]) if names else {}
    except FileNotFoundError as error:
        raise missing_file(path) from error
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: is no compiled package that eqpot exported") from error
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise ValueError(f"{path}: is no compiled package that eqpot exported")
    return found


def _compile(potential: Potential, path: Path, metadata: dict[str, Any]) -> None:
    # the compiler's own modules, 800 of them, are imported only by those who compile
    from torch.fx.experimental.proxy_tensor import make_fx

    from eqpot.so3 import lowering

    check_compiler()
    lowering.register()
    # two sizes that differ, since equal ones would be taken for one variable; and such as occur,
    # since by them the compiler decides which loops to give to threads
    n_atoms, n_slots = 101, 3 * SLOTS
    device = potential.anchor.device
    vectors = torch.ones(n_atoms, 3, n_slots, dtype=torch.float64, device=device)
    neighbors = torch.zeros(n_atoms, n_slots, dtype=torch.long, device=device)
    inputs = (vectors, neighbors, neighbors.t().contiguous(), neighbors[:, 0].contiguous())
    atoms = torch.export.Dim("n_atoms", min=_LEAST)
    slots = SLOTS * torch.export.Dim("n_slots", min=1)
    with torch.no_grad(), without_deprecations():
        # gradients are traced first, since torch.export cannot: what it sees is one plain graph
        with torch.enable_grad():
            kernel = explicit_kernel(potential)
            trace = make_fx(kernel, tracing_mode="symbolic", _allow_non_fake_inputs=True)
            graph = trace(*inputs)
        shapes = ({0: atoms, 2: slots}, {0: atoms, 1: slots}, {0: slots, 1: atoms}, {0: atoms})
        exported = torch.export.export(graph, inputs, dynamic_shapes=shapes)
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


def _kernel(package: Path) -> Kernel:
    with without_deprecations():
        loader = torch._inductor.aoti_load_package(str(package)).loader
    # the object around the loader would parse at each call, from text, how arguments are nested
    return lambda *inputs: loader.boxed_run(list(inputs))


def _check_runs(path: Path, metadata: dict[str, Any]) -> None:
    """Check that a package is for this eqpot and this processor."""
    version = metadata.get("format_version", 1)
    if version != _VERSION:
        raise ValueError(
            f"{path}: is a compiled package of version {version}, this eqpot runs version "
            f"{_VERSION}; export the potential again, with `eqpot export`"
        )
    present = torch.backends.cpu.get_cpu_capability()
    if metadata["processor"] != present:
        raise ValueError(
            f"{path}: was compiled for processors with {metadata['processor']}, this one has "
            f"{present}; export the potential on a machine like this one"
        )
