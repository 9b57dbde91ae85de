"""Low-rank updates of linear maps: few weights that learn, merged into the others at the end."""

import copy

import torch
from torch import Tensor, nn

from eqpot.nn.fields import DegreeLinear
from eqpot.potential import Potential


class LowRankMap(nn.Module):
    r"""A linear map that is fixed, and an update of low rank that learns: W + A B.

    B is zero at first, so the map is what it was. A has entries of variance 1/rank: a step of the
    optimizer on B then moves an entry of the product about as far as a step on W would.

    Parameters
    ----------
    fixed
        The map W, on the CPU.
    rank
        Of the update (of each degree), cut to the smaller side of W.
    generator
        Draws A.

    References
    ----------
    Hu et al., LoRA: Low-rank adaptation of large language models, ICLR 2022, eq. 3.
    """

    def __init__(
        self, fixed: nn.Linear | DegreeLinear, rank: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.fixed = fixed.requires_grad_(False)
        rank = min(rank, *fixed.weight.shape[-2:])
        with torch.random.fork_rng(devices=[]):  # fresh weights are overwritten below
            self.first, self.second = _factors(fixed, rank)
        values = torch.randn(self.first.weight.shape, generator=generator) * rank**-0.5
        self.to(fixed.weight)
        with torch.no_grad():
            self.first.weight.copy_(values)
            self.second.weight.zero_()

    def forward(self, field: Tensor) -> Tensor:
        """Return the mapped field."""
        mapped: Tensor = self.fixed(field) + self.second(self.first(field))
        return mapped

    @torch.no_grad()
    def merged(self) -> nn.Linear | DegreeLinear:
        """Return the fixed map with the update added to its weight, in place."""
        first, second = self.first.weight, self.second.weight
        if isinstance(self.fixed, nn.Linear):  # its weight has the outputs first
            self.fixed.weight.add_(second @ first)
        else:
            self.fixed.weight.add_(first @ second)
        return self.fixed


def _factors(
    fixed: nn.Linear | DegreeLinear, rank: int
) -> tuple[nn.Linear | DegreeLinear, nn.Linear | DegreeLinear]:
    """Return two maps of the same kind, one after the other of the shape of the fixed one."""
    if isinstance(fixed, nn.Linear):
        return (
            nn.Linear(fixed.in_features, rank, bias=False),
            nn.Linear(rank, fixed.out_features, bias=False),
        )
    n_degrees, n_in, n_out = fixed.weight.shape
    return DegreeLinear(n_degrees - 1, n_in, rank), DegreeLinear(n_degrees - 1, rank, n_out)


def add_low_rank_updates(potential: Potential, rank: int, seed: int) -> None:
    """Give every linear map of a potential an update of low rank, and fix all other parameters.

    Maps are the ``nn.Linear`` and :class:`eqpot.nn.fields.DegreeLinear` in it. The updates are
    parameters like all others, so that a copy for the moving average holds them, and a checkpoint
    by name too.

    Parameters
    ----------
    potential
        Changed in place, on the CPU.
    rank
        Of each update.
    seed
        Of the first factors.
    """
    generator = torch.Generator().manual_seed(seed)
    potential.requires_grad_(False)
    for name, module in list(potential.named_modules()):
        if isinstance(module, nn.Linear | DegreeLinear):
            potential.set_submodule(name, LowRankMap(module, rank, generator))


def merged(potential: Potential) -> Potential:
    """Return a copy in which every update is part of its weight: what files and exports hold.

    The copy of a potential without updates equals it.
    """
    potential = copy.deepcopy(potential)
    for name, module in list(potential.named_modules()):
        if isinstance(module, LowRankMap):
            potential.set_submodule(name, module.merged())
    return potential
