"""Real models on real data, ready for ``edgeopt quantize examples.NAME:model --data examples.NAME:data``."""
