"""What a potential costs by stage of its model: the place in the code of each stage, and counts."""

from typing import Final

from eqpot import keys
from eqpot.cost import CostCounter
from eqpot.graph import Graph
from eqpot.potential import Potential

DOUBLE_BACKWARD: Final = "double backward"
"""The phase of the derivative of a loss of forces."""
STAGES: Final = {
    "eqpot.nn.neighbors": "neighbours",
    "eqpot.models.gaunt:GauntModel": "neighbours",
    "eqpot.models.chunks": "neighbours",
    "eqpot.models.known_gradient": "neighbours",
    "eqpot.models.gaunt:GauntModel.geometry": "harmonics",
    "eqpot.so3.harmonics": "harmonics",
    "eqpot.nn.radial": "radial functions",
    "eqpot.nn.radial_table": "radial functions",
    "eqpot.models.interactions:FirstInteraction": "density, first layer",
    "eqpot.models.interactions:Interaction": "density, later layers",
    "eqpot.nn.density:species_density": "density, first layer",
    "eqpot.nn.density": "density, later layers",
    "eqpot.models.interactions:GauntLayer": "channel mixing",
    "eqpot.models.interactions:ProductStep": "channel mixing",
    "eqpot.models.interactions:Skip": "channel mixing",
    "eqpot.nn.fields": "channel mixing",
    "eqpot.models.deployment": "channel mixing",
    "eqpot.so3.products": "sphere products",
    "eqpot.so3.gaunt": "sphere products",
    "eqpot.models.interactions:Readout": "readout",
    "eqpot.models.gaunt:GauntModel.isolated_energies": "readout",
    "eqpot.physics.zbl": "repulsion",
    "eqpot.potential": "assembly",
    "eqpot.program": "assembly",
}
"""Stage by place, in the order in which a structure meets them; see docs/model.md."""


def count_evaluation(potential: Potential, graph: Graph) -> CostCounter:
    """Return the cost of energy, forces and stress of a graph."""
    counter = CostCounter(STAGES)
    with counter:
        potential(graph)
    return counter


def count_training(potential: Potential, graph: Graph) -> CostCounter:
    """Return the cost of the gradient of a loss of energy and forces, without the optimizer.

    Parameters
    ----------
    potential
        Of whose weights some must require a gradient; it is put into their ``grad``.
    graph
        Of one or more structures.

    Raises
    ------
    ValueError
        If no weight requires a gradient.
    """
    learning = [weight for weight in potential.parameters() if weight.requires_grad]
    if not learning:
        raise ValueError("`potential` must have weights that require a gradient; all are frozen")
    counter = CostCounter(STAGES)
    with counter:
        outputs = potential(graph, training=True)
        counter.derivative = DOUBLE_BACKWARD
        loss = outputs[keys.ENERGY].square().sum() + outputs[keys.FORCES].square().sum()
        loss.backward(inputs=learning)
    return counter
