"""From a float model to a certified int8 bundle: the optimizer, and the command ``edgeopt``."""
