"""The fleet server: registry of devices, staged rollouts with a gate, telemetry and drift.

Deciding (``cohort``, ``drift``, ``gate``, ``rollout``, ``sequence``) is kept apart from doing: ``store`` keeps,
``link`` and ``broker`` carry, ``ingest`` and ``worker`` drive, ``app`` answers, and ``server`` wires them together.
It never imports the optimizer or the agent.
"""
