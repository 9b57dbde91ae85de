"""A potential compiled ahead of time to machine code, by PyTorch's Inductor.

For the CPU each layer is compiled forth and back, and runs over chunks of atoms
(:mod:`eqpot.kernels`). For a GPU all from edge vectors to energies and forces is one graph. A
package is machine code: nothing here loads one unless its SHA-256 is given or it is trusted.
"""

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Dict, Final, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from eqpot import keys
from eqpot.compiler import check_compiler, instructions, processor_of, without_deprecations
from eqpot.durable import check_place, write_durably
from eqpot.exported import (
    ExportKind,
    ExportMetadata,
    PrintableText,
    open_source,
    read_member,
    read_metadata,
    read_trusted,
)
from eqpot.files import describe, dtype_of
from eqpot.graph import Graph
from eqpot.kernels.code import load_codes
from eqpot.kernels.compiling import LEAST, SLOTS
from eqpot.kernels.layers import Widths
from eqpot.kernels.packaging import write_package
from eqpot.kernels.sweep import WHOLE, StagedKernel, function_names
from eqpot.kernels.whole import Kernel
from eqpot.models.settings import GauntSettings
from eqpot.nn.neighbors import incoming_slots, pad_edges
from eqpot.potential import (
    Potential,
    edge_vectors,
    known_species,
    species_table,
    stress_of,
    virial_of,
)
from eqpot.program import ExplicitPotential, Program, verify

_VERSION: Final = 5
"""Of what the code takes; 1: vectors in the type of the model; 2: any number of slots; 3: no
incoming slots, so that sums over the edges to an atom were left to the caller; 4: one function of
all atoms on the CPU too."""
_KEY: Final = "eqpot"


class _Metadata(ExportMetadata):
    device: Literal["cpu", "cuda"]
    processor: PrintableText
    instructions: list[PrintableText] = Field(default_factory=list)  # where nothing is known
    format_version: int = 1  # the first version did not say


def _text_in(archive: zipfile.ZipFile) -> str:
    # each function of a package has the same
    text: str = json.loads(read_member(archive, ".wrapper_metadata.json"))[_KEY]
    return text


_KIND: Final = ExportKind("eqpot-compiled", "compiled package", _text_in, _Metadata)


class CompiledPotential(nn.Module):
    """A potential that is called like :class:`eqpot.potential.Potential` and runs compiled code.

    Parameters
    ----------
    kernel
        The compiled code, see :class:`eqpot.kernels.whole.ExplicitKernel`.
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
            As :class:`eqpot.kernels.whole.ExplicitKernel`; ``n_slots`` a multiple of
            :attr:`multiple`.
        training
            As for :meth:`forward`.
        """
        n_atoms, n_slots = neighbors.shape
        if n_atoms < LEAST:  # atoms without neighbours fill up the least number
            more = LEAST - n_atoms
            vectors = F.pad(vectors, (0, 0, 0, 0, 0, more), value=2.0 * self.r_max)
            neighbors, species = F.pad(neighbors, (0, 0, 0, more)), F.pad(species, (0, more))
            incoming = F.pad(incoming, (0, more), value=n_atoms * n_slots)
        parts = self.kernel(vectors, neighbors, incoming, species)
        energies, forces, virials = (
            part[:n_atoms] if training else part[:n_atoms].detach() for part in parts
        )
        return energies, forces, virials.view(-1, 3, 3)


def compile_potential(potential: Potential) -> CompiledPotential:
    """Return a potential that computes with machine code what the given one computes.

    Compiling takes one to three minutes, once for all sizes of structures, and needs a C++
    compiler. The code uses as many threads as PyTorch does when it is called. The model is that of
    :func:`eqpot.models.deployment.deployed`; the result can't be trained.

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
        compiled = _load(package, description, potential.anchor.device)
    _verify(compiled, potential)
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
        The metadata written, as of :func:`eqpot.export.export_torchscript`, with the processor and
        the instructions that the code is for; and, not in the file, the largest difference seen.

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
    check_place(Path(path))
    potential, metadata = open_source(potential, dtype_of(dtype), _KIND)
    metadata["device"] = potential.anchor.device.type
    metadata["processor"] = processor_of(potential.anchor.device)
    metadata["instructions"] = instructions()
    metadata["format_version"] = _VERSION
    with tempfile.TemporaryDirectory(prefix="eqpot-") as folder:
        package = Path(folder) / "potential.pt2"
        _compile(potential, package, metadata)
        compiled = _load(package, metadata, potential.anchor.device)
        metadata["largest_difference"] = _verify(compiled, potential)
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
    data = read_trusted(path, sha256, trust, _KIND)
    metadata = read_metadata(path, _KIND, data)
    _check_runs(path, metadata)
    with tempfile.TemporaryDirectory(prefix="eqpot-") as folder:
        # what was hashed is what is loaded, whatever becomes of the file
        package = Path(folder) / "potential.pt2"
        package.write_bytes(data)
        try:
            compiled = _load(package, metadata, torch.device(metadata["device"]))
        except RuntimeError as error:
            raise ValueError(
                f"{path}: torch {torch.__version__} cannot load this package, which torch "
                f"{metadata['torch_version']} made: {error}"
            ) from error
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
    return read_metadata(Path(path), _KIND)


def _compile(potential: Potential, path: Path, metadata: dict[str, Any]) -> None:
    check_compiler()
    write_package(potential, path, {_KEY: json.dumps(metadata, ensure_ascii=True)})


def _verify(compiled: CompiledPotential, potential: Potential) -> float:
    """Return the largest difference from a potential, of the code for chunks too."""
    kernels = [compiled.kernel]
    if isinstance(compiled.kernel, StagedKernel):
        kernels.append(compiled.kernel.in_small_chunks())
    description, device = describe(potential), potential.anchor.device
    variants = [CompiledPotential(kernel, description, device) for kernel in kernels]
    return max(verify(ExplicitPotential(variant), potential) for variant in variants)


def _load(package: Path, description: dict[str, Any], device: torch.device) -> CompiledPotential:
    return CompiledPotential(_kernel(package, description, device), description, device)


def _kernel(package: Path, description: dict[str, Any], device: torch.device) -> Kernel:
    if device.type == "cpu":
        settings = GauntSettings(**description["model"]["settings"])
        widths = Widths(settings, dtype_of(description["dtype"]))
        return StagedKernel(load_codes(package, function_names(widths.n_layers)), widths)
    from torch._inductor.package.package import load_package

    with without_deprecations():
        loader = load_package(str(package), WHOLE).loader
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
    present, own = processor_of(torch.device(metadata["device"])), instructions()
    if metadata["processor"] != present:
        raise ValueError(
            f"{path}: was compiled for {metadata['processor']}, this machine has {present}; export "
            "the potential on a machine like this one"
        )
    if own and (missing := set(metadata.get("instructions", [])).difference(own)):
        raise ValueError(
            f"{path}: was compiled for a processor with {', '.join(sorted(missing))}, which this "
            "one lacks; export the potential on this machine, or on the oldest that is to run it"
        )
    try:
        GauntSettings(**metadata["model"]["settings"])
        dtype_of(metadata["dtype"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: metadata field `model` or `dtype` is wrong: {error}") from error
