"""`python -m metaprime`, and what `accelerate launch -m metaprime` runs."""

from metaprime.cli.app import main

if __name__ == "__main__":
    main()
