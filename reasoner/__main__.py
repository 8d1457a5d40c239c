"""`python -m reasoner`, and what `accelerate launch -m reasoner` starts."""

from reasoner.cli.shadowed import leave_working_directory

if __name__ == "__main__":
    leave_working_directory()
    from reasoner.cli import main

    main()
