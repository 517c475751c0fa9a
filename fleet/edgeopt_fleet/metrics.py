"""What the server counts and measures about itself, for Prometheus.

Names follow https://prometheus.io/docs/practices/naming/: the unit at the end, counters end in ``_total``. Every
instance has a registry of its own, so nothing is shared between servers in one process. What the whole fleet is like is
read from the database by :mod:`edgeopt_fleet.store.census`, not counted here. Example::

    metrics = Metrics()
    metrics.ingest_messages.labels(type="telemetry").inc(120)
    metrics.exposition()                     # b'# HELP edgeopt_fleet_ingest_messages_total …'
"""

from __future__ import annotations

import platform
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

__all__ = ["CONTENT_TYPE", "MESSAGE_TYPES", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MESSAGE_TYPES = ("reported", "telemetry", "status", "unknown")
_FAST = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Metrics:
    """All series that one process keeps up."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        name = "edgeopt_fleet_{}".format
        self.ingest_messages = Counter(
            name("ingest_messages"), "Messages of devices that were stored or known.", ["type"], registry=registry
        )
        self.ingest_malformed = Counter(
            name("ingest_malformed"), "Messages of devices that could not be read.", ["type"], registry=registry
        )
        self.ingest_failures = Counter(
            name("ingest_failures"), "Batches that could not be committed; devices send them again.", registry=registry
        )
        self.ingest_batch_seconds = Histogram(
            name("ingest_batch_seconds"), "Committing one batch.", buckets=_FAST, registry=registry
        )
        self.ingest_lag_seconds = Histogram(
            name("ingest_lag_seconds"), "From a batch's oldest message to its commit.", buckets=_FAST, registry=registry
        )
        self.acknowledgements = Counter(
            name("acknowledgements"), "Acknowledgements sent to devices.", registry=registry
        )
        self.published = Counter(name("published"), "What was published to devices.", ["kind"], registry=registry)
        self.broker_connected = Gauge(
            name("broker_connected"), "Whether this process hears the devices.", registry=registry
        )
        self.broker_connections = Counter(
            name("broker_connections"), "Connections to the broker that this process made.", registry=registry
        )
        self.lease_held = Gauge(
            name("lease_held"), "Whether this process does the work of a role.", ["role"], registry=registry
        )
        self.lease_changes = Counter(
            name("lease_changes"), "Roles that this process took, lost or handed back.", ["role", "change"],
            registry=registry,
        )  # fmt: skip
        self.role_failures = Counter(
            name("role_failures"), "Times that a role's work ended with an error.", ["role"], registry=registry
        )
        self.http_request_seconds = Histogram(
            name("http_request_duration_seconds"), "Answering requests, by route template.",
            ["method", "route", "status"], buckets=_FAST, registry=registry,
        )  # fmt: skip
        build = Gauge(name("build_info"), "Version of this server.", ["version", "python"], registry=registry)
        build.labels(version=version("edgeopt"), python=platform.python_version()).set(1)
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        for kind in MESSAGE_TYPES:  # series exist before the first event, so that rates see it
            self.ingest_messages.labels(type=kind)
            self.ingest_malformed.labels(type=kind)

    def exposition(self) -> bytes:
        """Return all series in Prometheus' text format."""
        return generate_latest(self.registry)
