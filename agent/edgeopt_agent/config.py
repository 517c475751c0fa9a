"""The settings of one agent process, in one frozen record; the unit is in the name.

Example::

    AgentConfig(data=Path("/var/lib/edgeopt"), window_seconds=60)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeopt_contract.errors import UsageError

__all__ = ["DELIVERIES", "AgentConfig"]

DELIVERIES = ("auto", "mqtt", "http")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """What ``edgeopt-agent run`` was told. Raises :class:`UsageError` for a value that cannot be."""

    data: Path
    log_file: Path | None = None
    sources: tuple[str, ...] = ()
    interval_seconds: float = 0.0
    repeat: bool = False
    window_seconds: float = 60.0
    threads: int = 1
    nice: int = 0
    runner_memory_bytes: int | None = None
    one_runner: bool = False
    latency_limit_us: float | None = None
    self_test_seconds: float = 86_400.0
    infer_timeout_seconds: float = 30.0
    block_timeout_seconds: float = 10.0
    delivery: str = "auto"
    http_after_seconds: float = 60.0
    download_bytes_per_second: float | None = None
    refresh_seconds: float = 300.0
    resend_seconds: float = 10.0
    crash_limit: int = 3
    queue_limit: int = 16
    spool_bytes: int = 3 << 20
    disk_reserve_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        positive = {
            "window": self.window_seconds,
            "infer timeout": self.infer_timeout_seconds,
            "block timeout": self.block_timeout_seconds,
            "resend": self.resend_seconds,
            "threads": self.threads,
            "self-test": self.self_test_seconds,
            "latency limit": 1.0 if self.latency_limit_us is None else self.latency_limit_us,
            "http after": self.http_after_seconds,
            "refresh": self.refresh_seconds,
            "max download rate": 1.0 if self.download_bytes_per_second is None else self.download_bytes_per_second,
        }
        for name, value in positive.items():
            if not value > 0:
                raise UsageError(f"{name}: expected a number greater than zero, got {value}")
        if self.delivery not in DELIVERIES:
            raise UsageError(f"delivery: expected {' or '.join(DELIVERIES)}, got {self.delivery}")
        if not self.interval_seconds >= 0:
            raise UsageError(f"interval: expected zero seconds or more, got {self.interval_seconds}")
