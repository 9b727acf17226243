"""python recipes/prime.py recipes/configs/smoke.yaml [key=value ...]: prime an encoder; what `metaprime prime` does."""

import sys

from metaprime.cli.app import main

if __name__ == "__main__":
    sys.argv.insert(1, "prime")
    main()
