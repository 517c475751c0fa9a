"""The device agent: fetches bundles over MQTT, tests and serves them, falls back, and reports what it sees.

``edgeopt-agent`` is its command; :mod:`edgeopt_agent.app` is the one place where its parts are put together.
"""

__all__ = ["AGENT_VERSION"]

AGENT_VERSION = "0.1.0"
