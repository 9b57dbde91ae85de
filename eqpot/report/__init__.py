"""Pages and pictures from results already computed."""
