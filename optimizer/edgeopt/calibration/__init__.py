"""Ranges of activations: one pass over the calibration samples, in constant memory, serves all four calibrators."""
