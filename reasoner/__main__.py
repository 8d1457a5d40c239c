"""The command `reasoner`, `python -m reasoner`, and what `accelerate launch -m reasoner` starts."""

import sys

from reasoner.shadowed import foreign_package, leave_working_directory


def main() -> None:
    """Start the command line, unless one of its packages is somebody else's."""
    if said := foreign_package():
        sys.exit(f"error: {said}")
    from reasoner.cli import main as command_line

    command_line()


if __name__ == "__main__":
    leave_working_directory()
    main()
