"""A process under ptrace that stops before every call by which it, its threads or its children change the disk.

strace counts its injections for each thread apart, so "the N-th write" of a program with threads cannot be named with
it; here the calls of all are one sequence. A seccomp filter stops only calls that may change something (opening for
reading is not one), so the rest runs at full speed. Linux on x86_64. It does not know what is traced. Example::

    traced = Traced(lambda: run_something(), Path("data"))
    traced.run(lambda call: Verdict(kill=call.number == 7))      # ends before the seventh call takes effect
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Call", "Traced", "Verdict", "why_not_traceable"]

# <sys/ptrace.h>, <linux/seccomp.h>, <linux/filter.h>, <sys/prctl.h>
_CONT, _GETREGS, _SETREGS, _SEIZE = 7, 12, 13, 0x4206
_FORKS_EXECS_SECCOMP_EXITKILL = 0x02 | 0x04 | 0x08 | 0x10 | 0x80 | 0x100000
_EVENT_SECCOMP, _EVENT_STOP = 7, 128
_EVENTS = {1, 2, 3, 4, _EVENT_STOP}  # fork, vfork, clone, exec: nothing to do
_SET_SECCOMP, _FILTER, _NO_NEW_PRIVILEGES = 22, 2, 38
_ALLOW, _TRACE = 0x7FFF0000, 0x7FF00000
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_WALL = 0x40000000
_HERE = -100  # AT_FDCWD
_PAGE = 4096
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_BY_DESCRIPTOR = {
    1: "write", 18: "pwrite64", 20: "writev", 74: "fsync", 75: "fdatasync", 77: "ftruncate", 91: "fchmod",
    285: "fallocate", 296: "pwritev", 328: "pwritev2",
}  # fmt: skip
_BY_PATH = {2: "open", 76: "truncate", 82: "rename", 83: "mkdir", 84: "rmdir", 87: "unlink", 90: "chmod"}
_BY_FOLDER = {257: "openat", 258: "mkdirat", 263: "unlinkat", 264: "renameat", 268: "fchmodat", 316: "renameat2"}
_BY_SECOND_PATH = {86: "link", 88: "symlink"}  # the new name is the second argument
_BY_SECOND_FOLDER = {266: "symlinkat"}
_NAMES = {**_BY_DESCRIPTOR, **_BY_PATH, **_BY_FOLDER, **_BY_SECOND_PATH, **_BY_SECOND_FOLDER}
_OPENS = {2: 1, 257: 2}  # number of the call: which argument holds the flags

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class _Registers(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_ulonglong)
        for name in [
            "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
            "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
        ]
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is about to change ``path`` (relative to the watched directory); ``number`` counts from 1."""

    number: int
    name: str
    path: str
    size: int = 0

    def __str__(self) -> str:
        return f"{self.number}: {self.name} {self.path} {self.size or ''}".rstrip()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a call: it happens, fails with ``error``, or the process is killed before it happens."""

    kill: bool = False
    error: int = 0


def why_not_traceable() -> str | None:
    """Say why nothing can be traced here, or None."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"the tracer knows Linux on x86_64, this is {sys.platform} on {platform.machine()}"
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if scope.exists() and scope.read_text().strip() == "3":
        return "ptrace is forbidden by kernel.yama.ptrace_scope"
    return None


class Traced:
    """A forked child that runs ``main`` (which returns an exit code) and whose changes below ``watched`` are seen."""

    def __init__(self, main: Callable[[], int], watched: Path) -> None:
        self._watched = f"{watched.resolve()}/"
        self._calls = 0
        go, gone = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(gone)
            _become(main, go)
        os.close(go)
        try:
            _ptrace(_SEIZE, self.pid, 0, _FORKS_EXECS_SECCOMP_EXITKILL)
        finally:
            os.write(gone, b"g")
            os.close(gone)

    def run(self, judge: Callable[[Call], Verdict], look: Callable[[], None] = lambda: None) -> int:
        """Let it run to its end; return its exit code, or the negative number of the signal that ended it.

        ``judge`` is asked about every call, with everything else still running; ``look`` is called between events and
        at least every 20 ms. Needs SIGCHLD to be blocked in this thread, as :mod:`tests.sweep.worker` does.
        """
        code: int | None = None
        while True:
            try:
                pid, status = os.waitpid(-1, _WALL | os.WNOHANG)
            except ChildProcessError:
                assert code is not None, "the process vanished"
                return code
            if pid == 0:
                if code is None:
                    look()
                signal.sigtimedwait({signal.SIGCHLD}, 0.02)
            elif os.WIFSTOPPED(status):
                self._stopped(pid, status, judge)
            elif pid == self.pid:
                code = os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        """SIGKILL, to all of its threads; its children are killed with it."""
        os.kill(self.pid, signal.SIGKILL)

    def _stopped(self, pid: int, status: int, judge: Callable[[Call], Verdict]) -> None:
        event, number = status >> 16, os.WSTOPSIG(status)
        if event == _EVENT_SECCOMP:
            self._about_to_call(pid, judge)
        _ptrace(_CONT, pid, 0, 0 if event else number, gone_is_fine=True)

    def _about_to_call(self, pid: int, judge: Callable[[Call], Verdict]) -> None:
        registers = _Registers()
        _ptrace(_GETREGS, pid, 0, ctypes.addressof(registers), gone_is_fine=True)
        try:
            path = _path_of(pid, registers)
        except OSError:
            return  # the process is gone, or the descriptor is none
        if not f"{path}/".startswith(self._watched):
            return
        self._calls += 1
        name = _NAMES[registers.orig_rax]
        size = registers.rdx if name in ("write", "pwrite64") else 0
        verdict = judge(Call(self._calls, name, path[len(self._watched) :], size))
        if verdict.error:
            registers.orig_rax = ctypes.c_ulonglong(-1).value  # no call: what stands in rax is the answer
            registers.rax = ctypes.c_ulonglong(-verdict.error).value
            _ptrace(_SETREGS, pid, 0, ctypes.addressof(registers), gone_is_fine=True)
        if verdict.kill:
            self.kill()


def _become(main: Callable[[], int], go: int) -> None:
    """Wait for the tracer, install the filter, run ``main`` and end. Does not return."""
    code = 70
    try:
        os.read(go, 1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        _install_filter()
        code = main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _install_filter() -> None:
    """Let the kernel stop this process before the calls of ``_NAMES``, opening only if it is for writing."""
    plain = [number for number in _NAMES if number not in _OPENS]
    program = [(_LOAD, 0, 0, 0)]  # the number of the call
    tail = 4 * len(_OPENS) + 1  # how far it is from the last of the plain calls to _TRACE
    program += [(_EQUAL, tail + len(plain) - i - 1, 0, number) for i, number in enumerate(plain)]
    body: list[tuple[int, int, int, int]] = []
    for i, (number, argument) in enumerate(_OPENS.items()):
        rest = 4 * (len(_OPENS) - i - 1)
        # not this call: go on; else load its flags, and either trace or allow
        body += [(_EQUAL, 0, 3, number), (_LOAD, 0, 0, 16 + 8 * argument), (_ANY_BIT, rest + 2, 0, _WRITING)]
        body += [(_RETURN, 0, 0, _ALLOW)]
    program += [*body, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _TRACE)]
    packed = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(packed)
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(buffer))
    for arguments in ((_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SET_SECCOMP, _FILTER, header, 0, 0)):
        if _libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


def _path_of(pid: int, registers: _Registers) -> str:
    """Return the absolute path that the call in ``registers`` changes."""
    number = registers.orig_rax
    if number in _BY_DESCRIPTOR:
        return str(Path(f"/proc/{pid}/fd/{registers.rdi}").readlink())
    if number in _BY_PATH:
        return _absolute(pid, _HERE, registers.rdi)
    if number in _BY_SECOND_PATH:
        return _absolute(pid, _HERE, registers.rsi)
    if number in _BY_SECOND_FOLDER:
        return _absolute(pid, registers.rsi, registers.rdx)
    return _absolute(pid, registers.rdi, registers.rsi)


def _absolute(pid: int, folder: int, address: int) -> str:
    """Return the path whose text lies at ``address``, below the open directory ``folder`` if it is not absolute."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        text = memory.read(_PAGE - address % _PAGE)
        if b"\0" not in text:
            text += memory.read(_PAGE)
    descriptor = ctypes.c_int(folder & 0xFFFFFFFF).value
    place = Path(f"/proc/{pid}") / ("cwd" if descriptor == _HERE else f"fd/{descriptor}")
    return os.path.normpath(place.readlink() / os.fsdecode(text.split(b"\0", 1)[0]))


def _ptrace(request: int, pid: int, address: int, data: int, *, gone_is_fine: bool = False) -> None:
    if _libc.ptrace(request, pid, address, data) == -1:
        error = ctypes.get_errno()
        if not (gone_is_fine and error == errno.ESRCH):
            raise OSError(error, os.strerror(error), f"ptrace {request:#x}")
