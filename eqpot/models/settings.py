"""Hyper-parameters of the models, and the presets."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class GauntSettings:
    """Hyper-parameters of :class:`eqpot.models.gaunt.GauntModel`.

    Attributes
    ----------
    n_features
        Channels of each degree.
    l_max
        Highest degree of the densities and of the products.
    l_hidden
        Highest degree of the features that travel between layers.
    l_along
        In layers after the first, the highest degree of the fields that arrive along the edge as
        scalars, see :func:`eqpot.nn.density.along_edges`; 0 for none, at most ``l_hidden``.
    n_senders
        Channels of each degree that an atom sends to its neighbours.
    n_layers
        Message-passing layers; an atom sees ``n_layers * r_max``.
    n_radial
        Radial functions before the channel weights.
    correlation
        Body order of a layer less one: the number of densities in the highest product.
    n_element_channels
        Numbers in which an atom tells its element in the first layer; 0 for as many as there are
        elements, at most 16.
    envelope_power
        Exponent of :func:`eqpot.nn.radial.polynomial_envelope`: the lower, the less weight distant
        neighbours have until the training says otherwise.
    final_gate
        Whether the last layer ends with a gate, and a hidden layer alone makes energies of it.
        Without, a linear readout is added to the hidden layer: it rises where a SiLU is flat.
    """

    n_features: int = 64
    l_max: int = 3
    l_hidden: int = 1
    l_along: int = 0
    n_senders: int = 32
    n_layers: int = 2
    n_radial: int = 8
    correlation: int = 3
    n_element_channels: int = 0
    envelope_power: int = 6
    final_gate: bool = True

    def __post_init__(self) -> None:
        for name, least in (
            ("n_features", 1),
            ("l_max", 0),
            ("l_hidden", 0),
            ("l_along", 0),
            ("n_senders", 1),
            ("n_layers", 1),
            ("n_radial", 1),
            ("correlation", 1),
            ("n_element_channels", 0),
            ("envelope_power", 2),
        ):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, got {value}")
        for name, most in (("l_hidden", "l_max"), ("l_along", "l_hidden")):
            value, limit = getattr(self, name), getattr(self, most)
            if value > limit:
                raise ValueError(f"`{name}` must not be above `{most}` ({limit}), got {value}")

    def as_dict(self) -> dict[str, int | bool]:
        """Return the settings by name, as written to files."""
        return asdict(self)


PRESETS = {
    "small": GauntSettings(n_features=32, n_senders=16, l_max=2),
    "medium": GauntSettings(n_features=64, n_senders=32),
    "large": GauntSettings(n_features=128, n_senders=64),
}
