"""The way from frames to a verified potential: recipe, statistics, loss, loop, evaluation."""
