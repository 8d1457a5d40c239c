"""Entry point of the command `reasoner`, of `python -m reasoner` and of `accelerate launch -m reasoner`."""

import sys

from reasoner.shadowed import foreign_package, leave_working_directory


def main() -> None:
    """Start the command line, unless a foreign package shadows one of ours."""
    if error := foreign_package():
        sys.exit(f"error: {error}")
    from reasoner.cli import main as command_line

    command_line()


if __name__ == "__main__":
    leave_working_directory()
    main()
