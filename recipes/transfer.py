"""python recipes/transfer.py recipes/configs/smoke.yaml [key=value ...]: fine-tune the primed encoder, print each F1."""

import sys

from metaprime import load_config, transfer

if __name__ == "__main__":
    config, *overrides = sys.argv[1:] or ["recipes/configs/smoke.yaml"]
    for record in transfer(load_config(config, overrides)):
        cell, f1 = record["cell"], record["scores"]["lenient"]["overall"]["f1"]
        print(f"{cell['language']} {cell['method']} K={cell['shots']} seed {cell['transfer_seed']}: F1 {f1:.1f}")
