"""`python -m reasoner`, and what `accelerate launch -m reasoner` starts."""

from reasoner.cli import main

if __name__ == "__main__":
    main()
