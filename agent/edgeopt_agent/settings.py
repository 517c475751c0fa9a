"""Where the agent's settings come from: command line, environment, ``agent.toml``, the board's profile, defaults.

The first of these that says something counts. A name that nobody knows is refused, with the nearest that there is. One
table, :data:`SETTINGS`, is behind all of them and behind ``edgeopt-agent run --help``. Example::

    read_settings({"window": 30.0}, os.environ, Path("agent.toml"))        # an AgentConfig
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt_agent.config import AgentConfig
from edgeopt_contract.errors import UsageError

__all__ = ["DEFAULT_FILE", "PREFIX", "SETTINGS", "Setting", "locate_data", "read_settings"]

PREFIX = "EDGEOPT_AGENT_"
DEFAULT_FILE = Path("/etc/edgeopt/agent.toml")
_MIB, _KIB = 1 << 20, 1 << 10
_SMALL_BOARD_MIB = 1024  # two runtimes with a model each do not fit beside a system
_Value = Any  # what TOML has: a number, text, a list, true or false


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting. ``field`` of :class:`AgentConfig` is its value times ``scale``."""

    name: str
    kind: type  # float, int, str, bool, list (of texts) or Path
    help: str
    group: str
    field: str = ""
    scale: int = 1
    least: int | None = None
    greatest: int | None = None

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return PREFIX + self.name.upper().replace("-", "_")

    @property
    def default(self) -> Any:
        """The value where nobody says anything, in the unit of the setting; None: there is none."""
        value = getattr(_DEFAULTS, self.field) if self.field and self.field != "data" else None
        return value / self.scale if value is not None and self.scale != 1 else value


def _settings(group: str, *rows: tuple[str, type, str, str], **more: dict[str, int]) -> tuple[Setting, ...]:
    return tuple(
        Setting(name=name, kind=kind, field=field, help=text, group=group, **more.get(name.replace("-", "_"), {}))
        for name, kind, field, text in rows
    )


_DEFAULTS = AgentConfig(data=Path())
SETTINGS = (
    *_settings(
        "Places",
        ("data", Path, "data", "Where this device keeps its state; one agent at a time."),
        ("profile", Path, "", "A device profile (devices/*.toml): threads, memory-limit, one-runner of the board."),
        ("log-file", Path, "log_file", "Log there too; it and the one before take at most 1 MiB."),
    ),
    *_settings(
        "Requests",
        ("source", list, "sources", "module:factory, folder:PATH, http[:PORT] or unix:PATH; repeatable."),
        ("http", int, "", "Short for --source http:PORT; 0 is any."),
        ("interval", float, "interval_seconds", "Seconds between two items of an iterable source."),
        ("repeat", bool, "repeat", "Start an iterable source again when it ends."),
        http={"least": 0, "greatest": 65535},
    ),
    *_settings(
        "Runner",
        ("threads", int, "threads", "Threads of one inference."),
        ("nice", int, "nice", "Nice level of the runner, 0 to 19."),
        ("memory-limit", int, "runner_memory_bytes", "MiB of memory that one runner may take."),
        ("one-runner", bool, "one_runner", "There is no memory for two: an update ends the old runner first."),
        ("infer-timeout", float, "infer_timeout_seconds", "Seconds until a runner hangs."),
        (
            "latency-limit",
            float,
            "latency_limit_us",
            "Milliseconds; a bundle slower than this while it bakes is at fault.",
        ),
        ("self-test", float, "self_test_seconds", "Seconds between two self-tests."),
        nice={"least": 0, "greatest": 19},
        memory_limit={"least": 64, "scale": _MIB},
        latency_limit={"scale": 1000},
    ),
    *_settings(
        "Updates",
        ("delivery", str, "delivery", "How blocks come: auto, mqtt or http."),
        (
            "http-after",
            float,
            "http_after_seconds",
            "With auto: seconds without a block over MQTT until HTTP is tried.",
        ),
        ("max-download-rate", float, "download_bytes_per_second", "KiB a second that a download may take."),
        ("block-timeout", float, "block_timeout_seconds", "Seconds until a block is asked for again."),
        ("refresh", float, "refresh_seconds", "Seconds until the desired state is asked for again."),
        max_download_rate={"scale": _KIB},
    ),
    *_settings(
        "Reports",
        ("window", float, "window_seconds", "Seconds of one telemetry window."),
        ("resend", float, "resend_seconds", "Seconds until a report is sent again."),
        ("spool-limit", int, "spool_bytes", "KiB of disk for what waits to be sent."),
        spool_limit={"least": 512, "scale": _KIB},
    ),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}


def read_settings(given: Mapping[str, _Value], environment: Mapping[str, str], file: Path | None = None) -> AgentConfig:
    """Return the settings of ``run``. ``given`` is the command line's, ``file`` another than :data:`DEFAULT_FILE`.

    Raises :class:`UsageError`, which names the place that is wrong.
    """
    values = _gather(given, environment, file)
    profile = values.get("profile")
    values = (_read_profile(profile) if profile is not None else {}) | values
    if "data" not in values:
        raise UsageError(
            f"--data: expected where this device keeps its state; or set {PREFIX}DATA, or data in agent.toml"
        )
    fields = {
        _BY_NAME[name].field: value * _BY_NAME[name].scale if _BY_NAME[name].scale != 1 else value
        for name, value in values.items()
        if _BY_NAME[name].field
    }
    sources = [*values.get("source", ()), *([f"http:{values['http']}"] if "http" in values else [])]
    return AgentConfig(**(fields | {"sources": tuple(sources)}))


def locate_data(given: Path | None, environment: Mapping[str, str]) -> Path:
    """Return where the device keeps its state, for commands that need nothing else. Raises :class:`UsageError`."""
    return read_settings({} if given is None else {"data": given}, environment).data


def _gather(given: Mapping[str, _Value], environment: Mapping[str, str], file: Path | None) -> dict[str, _Value]:
    named = file or (Path(environment[f"{PREFIX}CONFIG"]) if environment.get(f"{PREFIX}CONFIG") else None)
    if named is None and DEFAULT_FILE.exists():
        named = DEFAULT_FILE
    values = _read_file(named) if named else {}
    for variable, text in environment.items():
        if variable.startswith(PREFIX) and variable != f"{PREFIX}CONFIG":
            setting = _known(variable.removeprefix(PREFIX).lower().replace("_", "-"), variable)
            values[setting.name] = _check(setting, _parse(setting, text), variable)
    return values | {name: _check(_BY_NAME[name], value, f"--{name}") for name, value in given.items()}


def _read_file(path: Path) -> dict[str, _Value]:
    values = {}
    for name, value in _read_toml(path).items():
        setting = _known(name, str(path))
        values[name] = _check(setting, value, f"{path}: {name}")
        if setting.kind is Path:
            values[name] = path.parent / values[name]
    return values


def _read_profile(path: Path) -> dict[str, _Value]:
    """Return what a board's profile says about its runner."""
    profile = _read_toml(path)
    cores, memory = profile.get("cores"), profile.get("memory_mib")
    if type(cores) is not int or type(memory) is not int:
        raise UsageError(f"{path}: expected a device profile with cores and memory_mib, as those in devices/")
    return {"threads": cores, "memory-limit": memory // 2, "one-runner": memory <= _SMALL_BOARD_MIB}


def _read_toml(path: Path) -> dict[str, _Value]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error


def _known(name: str, place: str) -> Setting:
    if name in _BY_NAME:
        return _BY_NAME[name]
    import difflib

    near = difflib.get_close_matches(name, _BY_NAME, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(_BY_NAME)}"
    raise UsageError(f"{place}: there is no setting {name}; {meant}")


def _parse(setting: Setting, text: str) -> _Value:
    """Return what ``text``, from the environment, says; as it is when it says nothing of the kind."""
    if setting.kind is list:
        return text.split()
    if setting.kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if setting.kind in (int, float):
        try:
            return setting.kind(text)
        except ValueError:
            return text
    return text


_WORDS = {float: "a number", int: "a whole number", bool: "true or false", list: "a list of texts"}


def _check(setting: Setting, value: _Value, place: str) -> _Value:
    """Return ``value`` if it is of the setting's kind and within its limits. Raises :class:`UsageError`."""
    kind = setting.kind
    fits = {
        float: type(value) in (int, float),
        int: type(value) is int,
        bool: type(value) is bool,
        list: isinstance(value, list | tuple) and all(isinstance(item, str) for item in value),
    }.get(kind, isinstance(value, str | Path))
    if not fits:
        raise UsageError(f"{place}: expected {_WORDS.get(kind, 'text')}, got {value!r}")
    least, greatest = setting.least, setting.greatest
    if (least is not None and value < least) or (greatest is not None and value > greatest):
        raise UsageError(f"{place}: expected {least}{f' to {greatest}' if greatest else ' or more'}, got {value}")
    return Path(value) if kind is Path else value
