"""What all tests share.

Hypothesis without wall-clock judgements, because a busy machine is not a fault; and no run of a command is recorded in
MLflow, but where a test asks for it.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.databases"]

settings.register_profile("edgeopt", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgeopt")

os.environ["EDGEOPT_TRACKING"] = "0"
