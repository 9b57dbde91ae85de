"""Parts of networks: radial functions, neighbour blocks, densities, maps of fields."""
