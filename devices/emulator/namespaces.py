"""Network namespaces and TUN devices through system calls, without names in ``/run/netns`` that would outlive a crash.

A namespace lives as long as a process or an open file of it. Linux only; needs CAP_SYS_ADMIN and CAP_NET_ADMIN over
the namespaces' owner, which ``unshare -U -r -n`` gives to everybody where the system allows it. Example::

    namespace = new_namespace()                    # a file descriptor
    with inside(namespace):
        tun = open_tun("link0", "10.77.0.2")       # a file descriptor that reads and writes IP packets
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgeopt_contract.errors import UsageError, WorldError

__all__ = ["enter_command", "inside", "missing", "new_namespace", "open_tun", "privileged_prefix"]

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_TUNSETIFF = 0x400454CA  # linux/if_tun.h, as are the two flags
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21  # linux/capability.h
_MTU = 1400  # bytes; a tunnel of a mobile network leaves about as much
_UNSHARE = ("unshare", "--user", "--map-root-user", "--net")


def missing() -> str | None:
    """Return why links cannot be emulated here, in one sentence, or ``None`` when they can."""
    tools = [tool for tool in ("ip", "nsenter", "unshare") if shutil.which(tool) is None]
    if tools:
        return f"emulated links need the tools {', '.join(tools)} (Debian: apt-get install iproute2 util-linux)"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "emulated links need /dev/net/tun, which is not there or may not be opened"
    tried = subprocess.run([*privileged_prefix(), "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        return f"emulated links need network namespaces, and '{' '.join(_UNSHARE)}' says: {tried.stderr.strip()}"
    return None


def privileged_prefix() -> Sequence[str]:
    """Return what to put in front of a command that shall make namespaces: nothing for who may, else ``unshare``."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    held = int(line.split()[1], 16)
    may = all(held >> bit & 1 for bit in (_CAP_NET_ADMIN, _CAP_SYS_ADMIN))
    return () if may else _UNSHARE


def new_namespace() -> int:
    """Make a network namespace with its loopback up and return a descriptor of it; the caller stays where it was."""
    with _back_afterwards():
        _call("unshare", _CLONE_NEWNET)
        subprocess.run(("ip", "link", "set", "lo", "up"), check=True)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def inside(namespace: int) -> Iterator[None]:
    """Move the calling thread into a namespace: its new sockets and the processes that it starts are there.

    Raises :class:`UsageError` for who may not.
    """
    with _back_afterwards():
        _call("setns", namespace, _CLONE_NEWNET)
        yield


def open_tun(name: str, address: str) -> int:
    """Make a TUN device in the current namespace, up, with ``address``/24; return its descriptor, non-blocking."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    request = struct.pack("16sH22x", name.encode("ascii"), _IFF_TUN | _IFF_NO_PI)
    fcntl.ioctl(descriptor, _TUNSETIFF, request)
    subprocess.run(("ip", "address", "add", f"{address}/24", "dev", name), check=True)
    subprocess.run(("ip", "link", "set", name, "mtu", str(_MTU), "up"), check=True)
    return descriptor


def enter_command(pid: int, namespace: int) -> list[str]:
    """Return what to put in front of a command to run it in the namespace that ``pid`` holds open.

    Where ``pid`` is in another user namespace (see :func:`privileged_prefix`) the command enters that, too.
    """
    command = ["nsenter", f"--net=/proc/{pid}/fd/{namespace}"]
    if Path(f"/proc/{pid}/ns/user").readlink() != Path("/proc/self/ns/user").readlink():
        command[1:1] = [f"--user=/proc/{pid}/ns/user", "--preserve-credentials"]
    return [*command, "--"]


@contextmanager
def _back_afterwards() -> Iterator[None]:
    """Bring the calling thread back to its namespace."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        _call("setns", here, _CLONE_NEWNET)
        os.close(here)


def _call(name: str, *arguments: int) -> None:
    """Call a system call that Python 3.11 has no function for. Raises an error that says what may be wrong."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) == 0:
        return
    code = ctypes.get_errno()
    if code == 1:  # EPERM
        raise UsageError(f"{name}: not allowed; run as root, or the whole program under '{' '.join(_UNSHARE)} COMMAND'")
    raise WorldError(f"{name} failed: {os.strerror(code)}")
