"""Ways to make a float model smaller and faster, one module each; what is in common stands in :mod:`edgeopt.recipe`."""
