"""Parts of networks: radial functions, neighbour densities, maps of fields, readouts."""
