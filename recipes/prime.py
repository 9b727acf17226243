"""python recipes/prime.py recipes/configs/smoke.yaml [key=value ...]: prime an encoder, print where it is."""

import sys

from metaprime import load_config, prime

if __name__ == "__main__":
    config, *overrides = sys.argv[1:] or ["recipes/configs/smoke.yaml"]
    print(prime(load_config(config, overrides), resume=True))
