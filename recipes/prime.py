"""Primes an encoder as `metaprime prime` does: python recipes/prime.py recipes/configs/smoke.yaml [key=value ...]"""

import sys

from metaprime.cli.app import main

if __name__ == "__main__":
    sys.argv.insert(1, "prime")
    main()
