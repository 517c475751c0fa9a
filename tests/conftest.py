"""What all tests share: Hypothesis without wall-clock judgements, because a busy machine is not a fault."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("edgeopt", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgeopt")
