"""Physics around the model: reference energies and pair repulsion."""
