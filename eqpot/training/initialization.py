"""Start a potential at the scale of its data: one pass that rescales weights, layer by layer."""

from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from eqpot import keys
from eqpot.data import GraphDataset, collate
from eqpot.graph import Graph
from eqpot.models import build_model, settings_of
from eqpot.physics.zbl import ZBLRepulsion
from eqpot.potential import Potential
from eqpot.training.recipe import Recipe
from eqpot.training.statistics import Statistics

_FRAMES_FOR_SCALE: Final = 16


@runtime_checkable
class Scalable(Protocol):
    """A module that can rescale its weights so that an output has a root mean square of one."""

    def match_scale(self, output: Any) -> Any:
        """Rescale the weights and return the output as it is with them."""


def scale_to_data(potential: Potential, graph: Graph) -> None:
    """Rescale fresh weights so that features are of order one and forces of the size of the data.

    Features are brought to a root mean square of one in the order in which they arise; then the
    readouts are scaled so that the forces of the untrained model have a tenth of the size of the
    labels, large enough to learn from and small enough not to be in the way.

    Parameters
    ----------
    potential
        With fresh weights; changed in place.
    graph
        A batch that is typical of the training.

    References
    ----------
    Layer-sequential scaling by data: Mishkin and Matas, All you need is a good init, ICLR 2016.
    """

    def rescale(module: nn.Module, _: Any, output: Any) -> Any:
        assert isinstance(module, Scalable)
        return module.match_scale(output)

    handles = [
        module.register_forward_hook(rescale)
        for module in potential.modules()
        if isinstance(module, Scalable)
    ]
    try:
        with torch.no_grad():
            potential.energies(graph, potential.edge_vectors(graph))
    finally:
        for handle in handles:
            handle.remove()
    forces = potential(graph)[keys.FORCES]
    size = float(forces.square().mean().sqrt())
    if size > 0.0:
        potential.scale_energies(min(10.0, 0.1 * potential.scale / size))


def fresh_potential(
    recipe: Recipe,
    references: dict[int, float],
    statistics: Statistics,
    train_set: GraphDataset,
) -> Potential:
    """Return an untrained potential at the scale of the data, the same for the same seed."""
    numbers = list(references)
    settings = settings_of(recipe.model.kind, recipe.model.preset, recipe.model.changes())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        model = build_model(
            settings, len(numbers), recipe.model.r_max, statistics.avg_num_neighbors
        )
    repulsion = ZBLRepulsion.of_elements(numbers) if recipe.model.repulsion else None
    potential = Potential(
        model,
        numbers,
        [references[z] for z in numbers],
        statistics.force_rms,
        recipe.model.r_max,
        repulsion,
    )
    potential = potential.to(torch.float32 if recipe.training.dtype == "float32" else torch.float64)
    rng = np.random.default_rng(recipe.training.seed)
    chosen = rng.permutation(len(train_set))[:_FRAMES_FOR_SCALE]
    scale_to_data(potential, collate([train_set[int(index)] for index in chosen]))
    return potential
