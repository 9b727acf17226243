#!/usr/bin/env bash
# accelerate 1.15.0: `accelerate launch --cpu --num_processes 2` starts one process on a machine without a GPU.
#
# The help of `accelerate launch` describes --num_processes as the total number of processes to be launched in parallel, and
# --cpu as forcing the training on the CPU. One would guess that both together start two processes that find one another, as
# torchrun does with --nproc-per-node 2, or that the combination is refused.
#
# Seen: one process runs, num_processes is 1, and nothing is printed about the 2 that were asked for; the exit code is 0. Two
# processes under torchrun find one another only if ACCELERATE_USE_CPU=1 is set: without it each of the two believes that it
# is alone and does the whole work, although WORLD_SIZE is 2.
#
# Why it matters: whoever tests distributed training on a CPU tests a single process, or trains the same model twice into
# one folder. A program should compare WORLD_SIZE with Accelerator().num_processes before it writes anything.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/venv"
"$here/venv/bin/pip" install --quiet torch==2.13.0
"$here/venv/bin/pip" install --quiet accelerate==1.15.0
cat > "$here/count.py" <<'PY'
import os
from accelerate import Accelerator

found = Accelerator().num_processes
print(f"WORLD_SIZE={os.environ.get('WORLD_SIZE', 'unset')} num_processes={found}", flush=True)
PY
cd "$here"
export OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=
"$here/venv/bin/python" -c "import accelerate, torch; print('accelerate', accelerate.__version__, 'torch', torch.__version__)"
echo "accelerate launch --cpu --num_processes 2:"
"$here/venv/bin/accelerate" launch --cpu --num_processes 2 count.py 2> launch.err | tee launch.out
echo "torchrun --nproc-per-node 2:"
"$here/venv/bin/torchrun" --standalone --nproc-per-node 2 count.py 2> alone.err | tee alone.out
echo "ACCELERATE_USE_CPU=1 torchrun --nproc-per-node 2:"
ACCELERATE_USE_CPU=1 "$here/venv/bin/torchrun" --standalone --nproc-per-node 2 count.py 2> group.err | tee group.out
test "$(grep -c num_processes= launch.out)" = 1
grep -q "num_processes=1" launch.out
test "$(grep -c 'WORLD_SIZE=2 num_processes=1' alone.out)" = 2
test "$(grep -c 'WORLD_SIZE=2 num_processes=2' group.out)" = 2
echo "as described"
