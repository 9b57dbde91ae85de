"""The options with which commands read files, as users know them."""

READING = {
    "energy_key",
    "forces_key",
    "stress_key",
    "virial_key",
    "group_key",
    "atomic_numbers_key",
    "positions_key",
    "cell_key",
    "units",
    "config_type",
}
