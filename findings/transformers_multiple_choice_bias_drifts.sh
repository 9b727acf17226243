#!/usr/bin/env bash
# transformers 5.23.0, torch 2.13.0: the bias of BertForMultipleChoice's classifier wanders under AdamW, although no loss depends on it.
#
# The classifier gives each choice one score, and the loss is a softmax over the scores of one question. Its bias is added to
# all of them alike and cancels: its gradient is zero. One would guess that it stays where it was drawn, with any optimizer,
# as do other weights that no loss depends on.
#
# Seen: backward() leaves about 1e-8 there, the rounding of sums that cancel. SGD does not move the bias by more than 1e-9 in
# 200 steps. AdamW divides each gradient by its own size, so that rounding is worth as much as any signal: at a rate of 1e-3
# the bias wanders by ten times a step and more. Epsilon 1e-8 does not hold it, being as small as the rounding.
#
# Why it matters: answers do not change, but everything that compares weights does. Runs that are equal up to the order of their sums
# (batched or one by one, another number of threads, another processor) end with a bias that differs from the first digit;
# a check with allclose fails on it alone; BitFit, Fisher masks and distances from the start count a parameter that has learned
# nothing. Remedy: freeze it, or build the layer without a bias.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/env"
"$here/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 numpy==2.4.6
cat > "$here/drift.py" <<'PY'
import json

import torch
import transformers
from transformers import BertConfig, BertForMultipleChoice

torch.set_num_threads(1)
print(json.dumps({"transformers": transformers.__version__, "torch": torch.__version__.partition("+")[0]}))
SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
RATE, STEPS = 1e-3, 200
OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=RATE),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0),
}
for name, optimizer_of in OPTIMIZERS.items():
    torch.manual_seed(0)
    model = BertForMultipleChoice(BertConfig(**SHAPE))
    optimizer, bias = optimizer_of(model.parameters()), model.classifier.bias
    start, gradient, moved = bias.item(), 0.0, 0.0
    for _ in range(STEPS):
        loss = model(input_ids=torch.randint(1, 50, (16, 4, 8)), labels=torch.randint(0, 4, (16,))).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gradient, moved = max(gradient, abs(bias.grad.item())), max(moved, abs(bias.item() - start))
    print(f"{name}: largest gradient {gradient:.1e}, moved {moved:.1e}, rate {RATE:g}, {STEPS} steps")
    print(json.dumps({"optimizer": name, "gradient below 1e-6": gradient < 1e-6, "moved more than two steps": moved > 2 * RATE}))
PY
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
"$here/env/bin/python" "$here/drift.py" 2> "$here/errors" | tee "$here/all" || { cat "$here/errors"; exit 1; }
grep '^{"' "$here/all" > "$here/found"
cat > "$here/expected" <<'TEXT'
{"transformers": "5.23.0", "torch": "2.13.0"}
{"optimizer": "SGD", "gradient below 1e-6": true, "moved more than two steps": false}
{"optimizer": "AdamW", "gradient below 1e-6": true, "moved more than two steps": true}
TEXT
diff "$here/expected" "$here/found" || { echo "the behaviour has changed"; exit 1; }
