"""Emulated devices: bad links, small ARM computers, and fleets of them, on one Linux machine.

For tests and for trying things by hand (``python -m devices.emulator --help``). Not part of what is installed: it runs
from a checkout, where ``devices`` is a namespace package beside ``demo`` and ``tools`` (ADR 0024).
"""
