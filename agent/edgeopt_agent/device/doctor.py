"""What ``edgeopt-agent doctor`` looks at: everything that keeps a device from serving, updating or reporting.

It works with an agent beside it and without, and needs no network to say something useful. It changes nothing but a
file that it writes and removes again to time the disk. Example::

    for finding in examine(Path("/var/lib/edgeopt")):
        print(finding.verdict, finding.check, finding.seen, finding.advice)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from edgeopt_agent.credentials.identity import Identity, key_file, load_identity
from edgeopt_agent.device.checkup import Finding, fail, good, warn
from edgeopt_agent.device.doctor_network import check_broker, check_server
from edgeopt_agent.device.gauges import read_gauges
from edgeopt_agent.device.lock import agent_of
from edgeopt_agent.device.machine import read_capabilities_apart
from edgeopt_agent.device.status import ago
from edgeopt_agent.reports.spool import Spool
from edgeopt_agent.shadow.record import Records
from edgeopt_agent.shadow.transitions import State
from edgeopt_agent.trust.floor import Reading, time_at_least
from edgeopt_agent.trust.state import load_state
from edgeopt_agent.update.slots import Slots
from edgeopt_contract.errors import EdgeoptError, UsageError
from edgeopt_contract.manifest import Capabilities

__all__ = ["examine"]

_MODULES = {"onnxruntime": "onnxruntime", "litert": "ai_edge_litert", "openvino": "openvino"}
_LEAST_DISK, _LEAST_MEMORY = 64 << 20, 64 << 20
_SLOW_SYNC_SECONDS = 0.5
_HOT_CELSIUS = 80.0
_QUIET_SECONDS = 86_400.0
_CLOCK_OFF_SECONDS = 300.0
_DAY = 86_400
_UNIT = Path("/etc/systemd/system/edgeopt-agent.service")
_Check = Callable[[], Iterator[Finding]]


def examine(data: Path) -> Iterator[Finding]:
    """Yield what is found, one check after the other. Never raises for what it looks at."""
    try:
        identity = load_identity(data)
    except UsageError as error:
        yield fail("identity", str(error), "enrol this device with a token of 'edgeopt token create'")
        yield from _guarded("disk", lambda: _disk(data if data.is_dir() else Path.cwd()))
        return
    agent = agent_of(data)
    yield (
        good("agent", f"runs as process {agent}")
        if agent
        else warn(
            "agent",
            "no agent runs here",
            f"start it: systemctl start edgeopt-agent, or edgeopt-agent run --data {data}",
        )
    )
    checks: tuple[tuple[str, _Check], ...] = (
        ("identity", lambda: _identity(data, identity)),
        ("clock", lambda: _clock(data, identity)),
        ("disk", lambda: _disk(data)),
        ("machine", lambda: _machine(data)),
        ("bundle", lambda: _bundle(data)),
        ("shadow", lambda: _shadow(data)),
        ("spool", lambda: _spool(data)),
        ("systemd", _systemd),
        ("broker", lambda: check_broker(data, identity, agent_runs=agent is not None)),
        ("server", lambda: check_server(identity)),
    )
    for name, check in checks:
        yield from _guarded(name, check)


def _guarded(name: str, check: _Check) -> Iterator[Finding]:
    """Yield what ``check`` finds; one that cannot look is a finding itself."""
    try:
        yield from check()
    except (EdgeoptError, OSError, msgspec.MsgspecError) as error:
        yield fail(name, f"cannot be looked at: {error}", "look as the user that runs the agent, or as root")


def _identity(data: Path, identity: Identity) -> Iterator[Finding]:
    private = [path for path in (data / "device.json", key_file(data, identity.key)) if path.exists()]
    open_to = [path for path in private if path.stat().st_mode & 0o077]
    if open_to:
        names = " ".join(map(str, open_to))
        yield fail("identity", f"others may read {names}", f"chmod 600 {names}; if somebody did, enrol again")
    else:
        yield good("identity", f"{identity.device}, private")
    if not identity.access.mqtt.tls:
        yield warn(
            "certificate", "none: the broker takes a password", "fine for trying; 'edgeopt-fleet init' gives TLS"
        )
        return
    left = (identity.access.valid_until - time.time()) / _DAY
    whole = identity.access.valid_until - identity.access.valid_from
    if left < 0:
        yield fail(
            "certificate", f"expired {-left:.0f} days ago", f"edgeopt-agent renew --data {data}; is the clock right?"
        )
    elif left * _DAY < whole / 6:
        yield warn("certificate", f"{left:.0f} days left, and it was not renewed", f"edgeopt-agent renew --data {data}")
    else:
        yield good("certificate", f"{left:.0f} days left")


def _clock(data: Path, identity: Identity) -> Iterator[Finding]:
    directory, now = data / "trust", time.time()
    floor = load_state(directory, identity.access.root).floor
    least = time_at_least(floor, Reading(wall=0.0, boot="", uptime=0.0))
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if now < least - _CLOCK_OFF_SECONDS:
        yield fail("clock", f"{shown}, but the fleet's keys have stated a later time", "timedatectl set-ntp true")
    else:
        yield good("clock", shown)


def _disk(data: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(data).free
    if free < _LEAST_DISK:
        yield fail("disk", f"{free >> 20} MiB free", "free some space: an update needs room for one more bundle")
    else:
        yield good("disk", f"{free >> 20} MiB free")
    probe = data / f".doctor.{os.getpid()}"
    began = time.monotonic()
    try:
        with probe.open("wb") as file:
            file.write(bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)
    took = time.monotonic() - began
    if took > _SLOW_SYNC_SECONDS:
        yield warn(
            "disk speed", f"1 MiB synced in {1000 * took:.0f} ms", "a worn card or a busy disk: think of another"
        )
    else:
        yield good("disk speed", f"1 MiB synced in {1000 * took:.0f} ms")


def _machine(data: Path) -> Iterator[Finding]:
    gauges = read_gauges(data)
    memory = gauges.get("memory_bytes", _LEAST_MEMORY)
    if memory < _LEAST_MEMORY:
        yield warn("memory", f"{memory / 2**20:.0f} MiB free", "end other programs, or set one-runner and memory-limit")
    else:
        yield good("memory", f"{memory / 2**20:.0f} MiB free")
    celsius = gauges.get("temperature_celsius")
    heat = "unknown" if celsius is None else f"{celsius:.0f} °C"
    if gauges.get("throttled") or (celsius or 0) >= _HOT_CELSIUS:
        yield warn("temperature", f"{heat}, {'the CPU is held back' if gauges.get('throttled') else 'hot'}", "cool it")
    elif gauges.get("under_voltage"):
        yield warn("temperature", f"{heat}; the supply was too weak since boot", "use a stronger supply or cable")
    else:
        yield good("temperature", heat)


def _bundle(data: Path) -> Iterator[Finding]:
    capabilities = read_capabilities_apart()
    yield from _runtimes(capabilities)
    slots = Slots(data / "slots", capabilities)
    slot = slots.pointed_to
    if slot is None:
        yield warn("bundle", "none has arrived yet", "roll one out to this device")
        return
    try:
        installed = slots.open(slot)
    except EdgeoptError as error:
        yield fail("bundle", f"slot {slot} is damaged: {error}", "edgeopt-agent rollback, or roll it out again")
        return
    manifest = installed.manifest
    yield good("bundle", f"{manifest.name} {manifest.version} in slot {slot}, every byte verified")


def _shadow(data: Path) -> Iterator[Finding]:
    """Say how a shadow fares, on a device that was given one."""
    spool = Spool.look_into(data / "agent.db")
    if spool is None:
        return
    try:
        trial = Records(spool).load()
    finally:
        spool.close()
    if trial.order is None:
        return
    seen = f"{trial.job} is {trial.state}" + (f": {trial.detail}" if trial.detail else "")
    if trial.state is State.FAILED:
        yield warn("shadow", seen, "what serves is untouched; look at the challenger, then offer it with a new job")
    elif trial.paused:
        yield warn("shadow", f"{seen}, paused: {trial.paused}", "it goes on by itself when there is room")
    else:
        yield good("shadow", seen)


def _runtimes(capabilities: Capabilities) -> Iterator[Finding]:
    """Import each runtime that is installed, in a child: some end the process that imports them."""
    if not capabilities.runtimes:
        yield fail("runtime", "none is installed", "pip install 'edgeopt[agent]'")
    for name, version in capabilities.runtimes.items():
        command = [sys.executable, "-c", f"import {_MODULES.get(name, 'sys')}"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode == 0:
            yield good("runtime", f"{name} {version}")
        else:
            said = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
            yield fail("runtime", f"{name} {version} cannot be imported: {said[0]}", f"install {name} again")


def _spool(data: Path) -> Iterator[Finding]:
    spool = Spool.look_into(data / "agent.db")
    if spool is None:
        yield good("spool", "empty: no agent has run yet")
        return
    try:
        damage, totals, is_full = spool.damage(), spool.totals(), spool.is_full
    finally:
        spool.close()
    if damage:
        yield fail("spool", f"damaged: {damage}", f"stop the agent, move {data / 'agent.db'} away and start it again")
    elif is_full:
        yield warn("spool", f"full, {totals.unacknowledged} messages wait", "bring the device online; counts go on")
    else:
        yield good("spool", f"{totals.unacknowledged} messages wait")
    if not totals.acknowledged_at:
        yield warn("fleet", "never heard of", "see broker and server below")
    elif time.time() - totals.acknowledged_at > _QUIET_SECONDS:
        yield warn("fleet", f"last heard of {ago(totals.acknowledged_at, time.time())}", "see broker and server below")
    else:
        yield good("fleet", f"last heard of {ago(totals.acknowledged_at, time.time())}")


def _systemd() -> Iterator[Finding]:
    if not Path("/run/systemd/system").is_dir():
        yield good("systemd", "this machine has none")
    elif any((folder / _UNIT.name).exists() for folder in (_UNIT.parent, Path("/usr/lib/systemd/system"))):
        yield good("systemd", f"{_UNIT.name} is installed")
    else:
        yield warn("systemd", f"{_UNIT.name} is not installed", "the agent will not start by itself; see the guide")
