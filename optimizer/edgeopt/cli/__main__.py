"""``python -m edgeopt.cli``: the same as the command ``edgeopt``, where scripts are not on the path."""

from edgeopt.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
