"""The error of an example whose data is not installed: what is missing, and the command that brings it.

It installs nothing itself. Example::

    raise MissingDataError("/usr/share/datasets/fashion-mnist", "apt-get install dataset-fashion-mnist")
"""

__all__ = ["MissingDataError"]


class MissingDataError(Exception):
    """The data of an example is not on this machine."""

    def __init__(self, missing: str, command: str) -> None:
        super().__init__(f"the data of this example is not installed: {missing} is missing; install it with: {command}")
