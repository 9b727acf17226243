#!/bin/sh
# Measures a meta-step and transfers on one GPU, in at most 8 minutes; every figure is written as soon as it is known.
#
#     benchmarks/gpu.sh --peak 989e12          on a GPU, with its dense bfloat16 FLOPs per second
#     benchmarks/gpu.sh --small --out DIR      a trial on a CPU, at small size
#
# PYTHON names the interpreter that has metaprime, and learn2learn for its row.
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
timeout 480 "${PYTHON:-python3}" benchmarks/gpu.py "$@"
code=$?
[ "$code" -ne 124 ] || echo "8 minutes are over: what is missing stays 'not measured'" >&2
exit "$code"
