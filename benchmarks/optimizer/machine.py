"""What a benchmark ran on: the CPU, the load, the versions and the commit, for its JSON.

It measures nothing. Example::

    json.dumps({"machine": machine(), "rows": rows})
"""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgeopt.targets import host_target

__all__ = ["machine"]

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("edgeopt", "numpy", "onnx", "onnxruntime", "onnxsim", "torch")


def machine() -> dict[str, Any]:
    """Return what the figures of this run depend on."""
    target = host_target()
    cpuinfo = Path("/proc/cpuinfo").read_text()
    names = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=_ROOT, capture_output=True, text=True, check=False)
    return {
        "cpu": names[0] if names else target.arch,
        "features": list(target.features),
        "cores": target.cores,
        "load_average": os.getloadavg()[0],  # far above one: other work shared the machine, and the times show it
        "python": platform.python_version(),
        "versions": {package: version(package) for package in _PACKAGES},
        "commit": git.stdout.strip() or None,
    }
