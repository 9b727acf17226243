"""Fine-tunes and scores as `metaprime transfer` does: python recipes/transfer.py recipes/configs/smoke.yaml [key=value ...]"""

import sys

from metaprime.cli.app import main

if __name__ == "__main__":
    sys.argv.insert(1, "transfer")
    main()
