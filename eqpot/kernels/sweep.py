"""The compiled layers of a potential go over chunks of atoms, by several threads.

What atoms send each other meets in tensors of all atoms, forth after each layer and back before it;
between these meetings a chunk needs no other, so its numbers stay in the cache of the core that
computes it. Of all atoms there is what they send and what their neighbours send back, and what was
kept on the way forth.
"""

import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from eqpot.kernels.layers import Array, Widths
from eqpot.kernels.team import Team

SLOTS_OF_CHUNK: Final = 2048
"""Slots of a chunk. Of 192-atom water, ``medium``, 1024 to 3072 take equally long and all 12 288 a
fifth longer: their numbers leave the cache."""
FEWEST: Final = 8
"""Atoms of a chunk, at least: so few take a tenth longer each."""

_Code = Callable[[list[Tensor]], list[Tensor]]
"""A compiled layer: inputs, and tensors that it fills; returns what is kept for the way back."""
_Task = Callable[[], object]

WHOLE: Final = "whole"
"""Name of the code of :class:`eqpot.kernels.whole.ExplicitKernel`, which returns what it finds."""
SUMS: Final = "sums"
"""Name of the code of :class:`eqpot.kernels.layers.Sums`."""


def forth_name(step: int) -> str:
    """Return the name of the code of a layer but the last, forth."""
    return f"forth_{step}"


def back_name(step: int) -> str:
    """Return the name of the code of a layer, back; of the last, all of it."""
    return f"back_{step}"


def function_names(n_layers: int) -> list[str]:
    """Return the names of all functions of a model."""
    forth = [forth_name(step) for step in range(n_layers - 1)]
    return [WHOLE, *forth, *(back_name(step) for step in range(n_layers)), SUMS]


class StagedKernel:
    """What :class:`eqpot.kernels.whole.ExplicitKernel` computes, by layers over chunks of atoms.

    It uses as many threads as PyTorch does where it is called. Its buffers stay until a structure
    comes that needs others; calls from several threads wait for each other. What fits one chunk is
    computed at once, without them: between its layers a molecule would lose an eighth of its time.

    Parameters
    ----------
    codes
        By :func:`function_names`.
    widths
        Of the model.
    slots_of_chunk
        As :data:`SLOTS_OF_CHUNK`.
    fewest
        As :data:`FEWEST`.
    """

    def __init__(
        self,
        codes: Mapping[str, _Code],
        widths: Widths,
        slots_of_chunk: int = SLOTS_OF_CHUNK,
        fewest: int = FEWEST,
    ) -> None:
        self._codes, self._widths = codes, widths
        self._slots_of_chunk, self._fewest = slots_of_chunk, fewest
        self._plan: _Plan | None = None
        self._team: Team | None = None
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, object]) -> "StagedKernel":
        """Return the kernel itself: it has nothing that a copy could change."""
        return self

    def in_small_chunks(self) -> "StagedKernel":
        """Return a kernel of the same code that cuts structures of four atoms and more."""
        return StagedKernel(self._codes, self._widths, slots_of_chunk=1, fewest=2)

    def __call__(
        self, vectors: Tensor, neighbors: Tensor, incoming: Tensor, species: Tensor
    ) -> list[Tensor]:
        """Return energies, forces and virials of tensors on the CPU."""
        n_atoms, n_slots = neighbors.shape
        if n_atoms * n_slots <= self._slots_of_chunk:
            return self._codes[WHOLE]([vectors, neighbors, incoming, species])
        n_threads = torch.get_num_threads()
        chunks = chunks_of(n_atoms, n_slots, n_threads, self._slots_of_chunk, self._fewest)
        # buffers that the next call can use, whatever the mode of this one
        with self._lock, torch.inference_mode(False), torch.no_grad():
            if self._plan is None or not self._plan.is_of(chunks, n_slots):
                self._plan = None  # its memory, before there is another
                self._plan = _Plan(self._codes, self._widths, chunks, n_slots)
            plan = self._plan
            plan.start(vectors, neighbors, incoming, species)
            if n_threads == 1:
                plan.work(lambda: None)
            else:
                if self._team is None or not self._team.is_of(n_threads):
                    self._team = Team(n_threads)
                self._team.run(plan.work)
            return plan.end()


def chunks_of(
    n_atoms: int,
    n_slots: int,
    n_threads: int,
    slots_of_chunk: int = SLOTS_OF_CHUNK,
    fewest: int = FEWEST,
) -> list[slice]:
    """Return ranges of atoms that fit the cache and busy the threads."""
    n_chunks = -(-n_atoms * n_slots // slots_of_chunk)
    n_chunks = n_threads * -(-n_chunks // n_threads)
    n_chunks = max(1, min(n_chunks, n_atoms // fewest))
    ends = [i * n_atoms // n_chunks for i in range(n_chunks + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


class _Plan:
    """Buffers for structures of one size, and what is done with which parts of them.

    All parts are cut beforehand: the hundred cuts of a call take as long as a small molecule.
    """

    def __init__(
        self, codes: Mapping[str, _Code], widths: Widths, chunks: list[slice], n_slots: int
    ) -> None:
        self._chunks, self._n_slots = chunks, n_slots
        lengths = {"N": chunks[-1].stop, "j": n_slots}
        last = widths.n_layers - 1

        def make(arrays: list[Array]) -> list[Tensor]:
            return [array.of_all().empty(lengths) for array in arrays]

        self._edges = make([widths.vectors, widths.neighbors, widths.species])
        self._after = [make(widths.layer_results()) for _ in range(last)]
        # a layer reads what the one after it wrote, so two sets take turns
        sets = {step % 2: make(widths.gradients()) for step in range(1, last + 1)[:2]}
        self._pulled = [make(widths.gradients_out(0))]
        self._pulled += [sets[step % 2] for step in range(1, last + 1)]
        self._results = make([widths.total, widths.forces, widths.virials])
        self._incoming = [
            widths.incoming.empty({"n": atoms.stop - atoms.start, "j": n_slots}) for atoms in chunks
        ]
        self._inputs: tuple[Tensor, ...] = ()
        self._kept: dict[tuple[int, int], list[Tensor]] = {}
        forth, back = range(last), reversed(range(last + 1))
        stages = [
            *([self._forth(codes[forth_name(t)], t, i) for i in self._numbers()] for t in forth),
            *([self._back(codes[back_name(t)], t, i) for i in self._numbers()] for t in back),
            [self._sum(codes[SUMS], i) for i in self._numbers()],
        ]
        stages[0] = [self._filled(task, i) for i, task in enumerate(stages[0])]
        self._stages = stages
        self._next: list[Iterator[int]] = []

    def is_of(self, chunks: list[slice], n_slots: int) -> bool:
        """Return whether the plan is for these chunks and this number of slots."""
        return self._chunks == chunks and self._n_slots == n_slots

    def start(self, vectors: Tensor, neighbors: Tensor, incoming: Tensor, species: Tensor) -> None:
        """Take the inputs of a call; they are read by the first stage."""
        self._inputs = vectors, neighbors, incoming
        self._edges[2].copy_(species)
        # threads take the tasks of a stage by their numbers, each the next that is left
        self._next = [itertools.count() for _ in self._stages]

    def end(self) -> list[Tensor]:
        """Return the results, which the next call leaves as they are."""
        self._inputs = ()
        return [result.clone() for result in self._results]

    def work(self, meet: Callable[[], object]) -> None:
        """Do a thread's part; ``meet`` returns when all threads have called it."""
        with torch.no_grad():
            for stage, numbers in zip(self._stages, self._next, strict=True):
                while (number := next(numbers)) < len(stage):
                    stage[number]()
                if stage is not self._stages[-1]:
                    meet()

    def _numbers(self) -> range:
        return range(len(self._chunks))

    def _parts(self, tensors: Sequence[Tensor], chunk: int) -> list[Tensor]:
        return [tensor[self._chunks[chunk]] for tensor in tensors]

    def _before(self, step: int, chunk: int) -> list[Tensor]:
        vectors, neighbors, species = self._parts(self._edges, chunk)
        edges = [vectors, neighbors, self._edges[2], species]
        if step == 0:
            return edges
        _, scalars, *sent = self._after[step - 1]
        return [*edges, *self._parts([scalars], chunk), *sent]

    def _filled(self, task: _Task, chunk: int) -> _Task:
        """Return a task that begins with the chunk's part of the inputs."""
        atoms = self._chunks[chunk]
        vectors, neighbors, _ = self._parts(self._edges, chunk)

        def run() -> None:
            given = self._inputs
            vectors.copy_(given[0][atoms])
            neighbors.copy_(given[1][atoms])
            self._incoming[chunk].copy_(given[2][:, atoms])
            task()

        return run

    def _forth(self, code: _Code, step: int, chunk: int) -> _Task:
        inputs = [*self._before(step, chunk), *self._parts(self._after[step], chunk)]

        def run() -> None:
            self._kept[step, chunk] = code(inputs)

        return run

    def _back(self, code: _Code, step: int, chunk: int) -> _Task:
        inputs = self._before(step, chunk)
        filled = self._parts(self._pulled[step], chunk)
        if step == len(self._after):  # the last layer
            inputs += self._parts([energies for energies, *_ in self._after], chunk)
            results = self._parts(self._results[:1], chunk)
            return functools.partial(code, [*inputs, *results, *filled])
        vectors, scalars, *sent = self._pulled[step + 1]
        inputs += [self._incoming[chunk], *self._parts([vectors, scalars], chunk), *sent]
        return lambda: code([*inputs, *self._kept.pop((step, chunk)), *filled])

    def _sum(self, code: _Code, chunk: int) -> _Task:
        own, shares = self._pulled[0]
        filled = self._parts([own, *self._results[1:]], chunk)
        inputs = [self._incoming[chunk], filled[0], shares, *filled[1:]]
        return functools.partial(code, inputs)
