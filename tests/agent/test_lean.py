"""What the agent's process does not import."""

from __future__ import annotations

import json
import subprocess
import sys

_SCRIPT = """
import json, sys
from edgeopt_agent.lean import keep_lean
keep_lean()
import edgeopt_agent.app
left_out = {"email", "http.client", "importlib.metadata", "typing_extensions", "numpy", "zipfile", "csv"}
print(json.dumps(sorted(left_out & set(sys.modules))))
import urllib.request
print(json.dumps(urllib.request.Request("http://a/b").host))
print(json.dumps("http.client" in sys.modules))
"""


def test_agent_imports_only_what_it_uses() -> None:
    """What its libraries drag along is left out, and is there for who does use it."""
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    assert [[], "a", True] == [json.loads(line) for line in done.stdout.splitlines()]
