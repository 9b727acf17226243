#!/usr/bin/env bash
# peft 0.21.2, transformers 5.23.0: a saved LoRA text classifier of DeBERTa, EuroBERT or BERT computes something else when it is loaded.
#
# A classifier of texts has more than one new layer on an encoder that was pre-trained as a masked language model: DeBERTa a
# pooler, EuroBERT a layer called dense, BERT a pooler (which such a checkpoint lacks), each before the layer that has the classes.
# With task_type SEQ_CLS peft saves the layers after the encoder by itself. One would guess that it saves all that transformers
# drew anew, so that AutoPeftModelForSequenceClassification gives back the model that was saved, in another process too.
#
# Seen: it knows the names classifier and score alone. RoBERTa's and ELECTRA's whole heads are called classifier, DistilBERT's
# pre_classifier ends with that word: these come back equal. The pooler or dense of the others is neither trained nor saved.
# A process that loads the folder draws it again, and the logits are others; no warning names it. So a fine-tuned classifier whose
# score was measured in training has another one the next day, by chance.
#
# Why it matters: LoRA on DeBERTa with SEQ_CLS is a common recipe, and a folder that is shared or loaded for a test gives scores that
# nobody measured. Remedy: modules_to_save=["pooler"] (EuroBERT: ["dense"]), which trains and saves the layer.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/env"
"$here/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 peft==0.21.2 numpy==2.4.6
cat > "$here/saved.py" <<'PY'
import json
import sys
from pathlib import Path

import peft
import torch
import transformers
from peft import AutoPeftModelForSequenceClassification, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification

WIDTH = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
# The shape of each encoder, the site of LoRA, and the layer that has to be named.
ENCODERS = {
    "roberta": (WIDTH, "query", ""),
    "electra": ({**WIDTH, "embedding_size": 32}, "query", ""),
    "distilbert": ({"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}, "q_lin", ""),
    "bert": (WIDTH, "query", "pooler"),
    "deberta-v2": (WIDTH, "query_proj", "pooler"),
    "eurobert": ({**WIDTH, "num_key_value_heads": 2}, "q_proj", "dense"),
}
torch.set_num_threads(1)
root, step = Path(sys.argv[1]), sys.argv[2]
if step == "save":
    print(json.dumps({"peft": peft.__version__, "transformers": transformers.__version__}))
ids = torch.arange(5, 21).reshape(2, 8)
for kind, (shape, site, layer) in ENCODERS.items():
    for named in ([], [layer]) if layer else ([],):
        base, folder = root / kind, root / f"{kind} {' '.join(named)}"
        if step == "save":
            if not base.exists():
                config = AutoConfig.for_model(kind, vocab_size=60, pad_token_id=0, **shape)
                AutoModelForMaskedLM.from_config(config).save_pretrained(base)
            model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
            lora = LoraConfig(task_type="SEQ_CLS", target_modules=[site], modules_to_save=named or None)
            model = get_peft_model(model, lora).eval()
            model.save_pretrained(folder)
            save_file({"logits": model(input_ids=ids).logits.detach()}, root / f"{folder.name}.safetensors")
        else:
            model = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
            before = load_file(root / f"{folder.name}.safetensors")["logits"]
            apart = (model(input_ids=ids).logits - before).abs().max().item()
            print(f"{kind}, modules_to_save {named}: largest difference of the logits {apart:.1e} at a size of {before.abs().max().item():.1e}")
            print(json.dumps({"encoder": kind, "modules_to_save": named, "equal": apart < 1e-6}))
PY
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
for step in save load; do
    "$here/env/bin/python" "$here/saved.py" "$here" "$step" 2> "$here/errors" || { cat "$here/errors"; exit 1; }
done | tee "$here/all"
grep '^{"' "$here/all" > "$here/found"
cat > "$here/expected" <<'TEXT'
{"peft": "0.21.2", "transformers": "5.23.0"}
{"encoder": "roberta", "modules_to_save": [], "equal": true}
{"encoder": "electra", "modules_to_save": [], "equal": true}
{"encoder": "distilbert", "modules_to_save": [], "equal": true}
{"encoder": "bert", "modules_to_save": [], "equal": false}
{"encoder": "bert", "modules_to_save": ["pooler"], "equal": true}
{"encoder": "deberta-v2", "modules_to_save": [], "equal": false}
{"encoder": "deberta-v2", "modules_to_save": ["pooler"], "equal": true}
{"encoder": "eurobert", "modules_to_save": [], "equal": false}
{"encoder": "eurobert", "modules_to_save": ["dense"], "equal": true}
TEXT
diff "$here/expected" "$here/found" || { echo "the behaviour has changed"; exit 1; }
