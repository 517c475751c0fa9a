"""Making a root: Debian's Python and the wheels of NumPy and ONNX Runtime, unpacked. The one place that uses a network.

Packages come by ``apt-get download`` with a state of its own (nothing is installed, no lock is taken, no root needed)
from the mirror that this machine's apt uses, wheels by ``pip install --target --platform``. Nothing of another
architecture is run. About 15 s and 200 MB. Example::

    build_root(Request(arch="aarch64", folder=Path("roots")), on_step=print)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import msgspec

from edgeopt.emulation.cpus import CPUS, cpuinfo
from edgeopt.emulation.root import RECORD, Root, RootRecord
from edgeopt_contract.errors import UnreachableError, UsageError

__all__ = ["ARCHITECTURES", "PYTHON", "Request", "build_root", "compile_modules"]

OnStep = Callable[[str], None]

ARCHITECTURES = ("aarch64",)
_DEBIAN_ARCH, _SUITE, PYTHON = "arm64", "bookworm", "3.11"  # what Raspberry Pi OS was made of, too
_PACKAGES = (
    *("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libbz2-1.0", "liblzma5", "libssl3", "libexpat1", "libffi8"),
    *("libsqlite3-0", "libuuid1", "libcrypt1"),
    *(f"libpython{PYTHON}-minimal", f"python{PYTHON}-minimal", f"libpython{PYTHON}-stdlib"),
)
_WHEELS = ("numpy", "onnxruntime")  # in the versions installed here: what is certified is what was measured
_GLIBCS = ("2_28", "2_27", "2_17")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_CORES = 4
_TOOLS = ("apt-get", "dpkg-deb")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to build, and the folder in which it shall lie under its architecture's name.

    ``mirror`` is a Debian mirror's address, this machine's unless given. ``wheels`` are packages besides NumPy and ONNX
    Runtime, as pip names them.
    """

    arch: str
    folder: Path
    mirror: str | None = None
    wheels: tuple[str, ...] = ()


def build_root(request: Request, on_step: OnStep) -> Root:
    """Build the root and put it in the place of an older one, as a whole.

    Raises :class:`UsageError` for an unknown architecture or missing tools, :class:`UnreachableError` when apt or pip
    fail.
    """
    if request.arch not in ARCHITECTURES:
        raise UsageError(f"expected an architecture out of {', '.join(ARCHITECTURES)}, got {request.arch}")
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing or not _KEYRING.exists():
        what = ", ".join([*missing, *([] if _KEYRING.exists() else [str(_KEYRING)])])
        raise UsageError(f"a root is made of Debian packages, and this machine lacks {what}: build it on a Debian")
    place = request.folder / request.arch
    request.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=request.folder) as made:
        new = Path(made) / request.arch
        on_step(f"fetching {len(_PACKAGES)} Debian packages")
        _unpack_packages(new / "root", request.mirror or _mirror(), Path(made))
        on_step("fetching wheels")
        packages = _install_wheels(new / "root", request.wheels)
        on_step("compiling")
        compile_modules(new / "root" / "usr" / "lib" / f"python{PYTHON}", new / "root" / "usr" / "lib" / "python3")
        _describe_cpus(new)
        record = RootRecord(arch=request.arch, python=PYTHON, packages=packages)
        (new / RECORD).write_bytes(msgspec.json.encode(record))
        if place.exists():
            place.rename(Path(made) / "old")
        new.rename(place)
    return Root(place, record)


def _mirror() -> str:
    """Return the address of the Debian archive that this machine's apt uses."""
    form = "$(REPO_URI) $(COMPONENT) $(CREATED_BY)"
    for line in _run("apt-get", "indextargets", "--format", form).splitlines():
        address, component, kind = line.split()
        if kind == "Packages" and component == "main" and "security" not in address:
            return address
    raise UsageError("this machine's apt knows no Debian archive: name one with --mirror")


def _unpack_packages(root: Path, mirror: str, scratch: Path) -> None:
    """Fetch the packages with a state of apt's own, and unpack them without running their scripts."""
    state = scratch / "apt"
    for folder in ("lists/partial", "archives/partial", "etc"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    sources = state / "etc" / "sources.list"
    sources.write_text(f"deb [arch={_DEBIAN_ARCH} signed-by={_KEYRING}] {mirror} {_SUITE} main\n")
    settings = {
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state,
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "APT::Architecture": _DEBIAN_ARCH,
        "APT::Architectures": _DEBIAN_ARCH,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    (state / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    environment = os.environ | {"APT_CONFIG": str(state / "apt.conf")}
    _run("apt-get", "-qq", "update", environment=environment)
    _run("apt-get", "-qq", "download", *_PACKAGES, environment=environment, folder=state / "archives")
    root.mkdir(parents=True)
    for package in sorted((state / "archives").glob("*.deb")):
        _run("dpkg-deb", "-x", str(package), str(root))
    for unread in ("doc", "man", "lintian", "locale"):
        shutil.rmtree(root / "usr" / "share" / unread, ignore_errors=True)


def _install_wheels(root: Path, more: Sequence[str]) -> dict[str, str]:
    """Unpack the wheels where Debian's Python looks for modules; return the versions of all."""
    place = root / "usr" / "lib" / "python3" / "dist-packages"
    pinned = [f"{name}=={metadata.version(name)}" for name in _WHEELS]
    platforms = [f"--platform=manylinux_{glibc}_aarch64" for glibc in _GLIBCS]
    options = ("--quiet", "--disable-pip-version-check", "--no-compile", "--only-binary=:all:", "--no-warn-conflicts")
    version = ("--python-version", PYTHON, "--implementation", "cp", "--target", str(place))
    _run(
        *(sys.executable, "-m", "pip", "install", *options, *platforms, "--platform=manylinux2014_aarch64"),
        *(*version, *pinned, *more),
    )
    return {found.name: found.version for found in metadata.distributions(path=[str(place)])}


def compile_modules(*folders: Path) -> None:
    """Compile a root's modules, without which Python starts half as fast; any Python of the same version can.

    Nothing happens where there is none.
    """
    compiler = shutil.which(f"python{PYTHON}")
    if f"{sys.version_info.major}.{sys.version_info.minor}" == PYTHON:
        compiler = sys.executable
    if compiler is not None:
        options = ("-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-x", "/(test|tests|f2py|idlelib)/")
        # some files in a distribution are templates or meant for another version: those stay uncompiled
        command = [compiler, "-m", "compileall", *options, *map(str, folders)]
        subprocess.run(command, check=False, capture_output=True)


def _describe_cpus(place: Path) -> None:
    """Make one view of the root for each CPU: links to the system, and files that its kernel would show."""
    for cpu in CPUS:
        prefix = place / "cpus" / cpu
        (prefix / "proc").mkdir(parents=True)
        (prefix / "proc" / "cpuinfo").write_text(cpuinfo(cpu, _CORES))
        present = prefix / "sys" / "devices" / "system" / "cpu"
        present.mkdir(parents=True)
        for name in ("possible", "present", "online"):
            (present / name).write_text(f"0-{_CORES - 1}\n")
        for entry in (place / "root").iterdir():
            (prefix / entry.name).symlink_to(Path("..") / ".." / "root" / entry.name)


def _run(*command: str, environment: dict[str, str] | None = None, folder: Path | None = None) -> str:
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-1000:]
        raise UnreachableError(f"'{command[0]} {command[1]}' ended with code {done.returncode}: {said}")
    return done.stdout
