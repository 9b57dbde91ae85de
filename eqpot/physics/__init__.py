"""Physics around a model: reference energies, short-range repulsion, long-range terms."""
