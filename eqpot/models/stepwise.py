"""One layer of the flagship at a time, for those who go through a structure in parts."""

from collections.abc import Sequence

from torch import Tensor

from eqpot.models.gaunt import GauntModel, sent


def layer_field(
    model: GauntModel,
    step: int,
    vectors: Tensor,
    arriving: Sequence[Tensor],
    scalars: Tensor,
    species: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the field after a layer, shape (k, n, c), and what of it is read out, shape (n,).

    Parameters
    ----------
    model
        Whose layer it is.
    step
        Which layer, from 0.
    vectors
        Of the edges, in blocks, shape (n, 3, j).
    arriving
        What comes from the neighbours: into the first layer their species, shape (n, j), later the
        two parts of :func:`sent_fields`, shapes (n, j, s) and (n, j, (k - 1) * s).
    scalars
        Of l = 0 of the field before the layer, shape (n, c); before the first it is the embedding.
    species
        Shape (n,).
    """
    distances, harmonics = model.geometry(vectors)
    if step == 0:
        kept = model.first_skip(scalars, species)
        field = model.first(harmonics, distances, *arriving, kept, species)
        return field, model.first_readout(field[0])
    kept = model.skips[step - 1](scalars, species)
    field = model.later[step - 1](harmonics, distances, *arriving, kept, species)
    return field, model.readouts[step - 1](field[0])


def sent_fields(model: GauntModel, step: int, field: Tensor) -> tuple[Tensor, Tensor]:
    """Return what atoms send of a field into a later layer, as :func:`eqpot.models.gaunt.sent`."""
    return sent(model.senders[step - 1](field))
