#!/usr/bin/env bash
# transformers 5.23.0 saves into any os.PathLike, and loads from pathlib.Path alone.
#
# The annotation of from_pretrained is str | os.PathLike[str]. One would guess that an object with __fspath__ can be given
# wherever a path can, as to open(), to save_pretrained of the same class and to safetensors.
#
# Seen: save_pretrained(folder) writes into the folder that __fspath__ names. from_pretrained(folder) of the same object takes
# str(folder), which is the object's repr unless it defines __str__, finds no folder of that name, and asks the hub for a
# repository that is called so. The error is one about repository names and does not mention __fspath__. pathlib.Path works
# because its str() is the path. With a __str__ that returns the path, the same object loads. safetensors takes both.
#
# Why it matters: whoever returns an object for a saved model (a path with provenance, say) and makes it an os.PathLike has
# to define __str__ too, or every user of AutoModel.from_pretrained meets an error about repository names.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/venv"
"$here/venv/bin/pip" install --quiet transformers==5.23.0 safetensors==0.8.0 numpy
cat > "$here/run.py" <<'PY'
import json, os, pathlib, sys
import numpy
import safetensors.numpy
import transformers
from transformers import AutoConfig, BertConfig


class Folder(os.PathLike):
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


class Named(Folder):
    def __str__(self):
        return self.path


def outcome(load, place):
    try:
        return type(load(place)).__name__
    except OSError as error:
        return f"OSError that {'mentions' if '__fspath__' in str(error) else 'does not mention'} __fspath__"


root = sys.argv[1]
saved = os.path.join(root, "saved")
BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16).save_pretrained(Folder(saved))
safetensors.numpy.save_file({"a": numpy.zeros(2)}, Folder(os.path.join(root, "a.safetensors")))
print("transformers", transformers.__version__)
found = {
    "save_pretrained(PathLike)": sorted(os.listdir(saved)),
    "from_pretrained(str)": outcome(AutoConfig.from_pretrained, saved),
    "from_pretrained(pathlib.Path)": outcome(AutoConfig.from_pretrained, pathlib.Path(saved)),
    "from_pretrained(PathLike)": outcome(AutoConfig.from_pretrained, Folder(saved)),
    "from_pretrained(PathLike with __str__)": outcome(AutoConfig.from_pretrained, Named(saved)),
    "safetensors load_file(PathLike)": sorted(safetensors.numpy.load_file(Folder(os.path.join(root, "a.safetensors")))),
}
print(json.dumps(found, indent=1))
expected = {
    "save_pretrained(PathLike)": ["config.json"],
    "from_pretrained(str)": "BertConfig",
    "from_pretrained(pathlib.Path)": "BertConfig",
    "from_pretrained(PathLike)": "OSError that does not mention __fspath__",
    "from_pretrained(PathLike with __str__)": "BertConfig",
    "safetensors load_file(PathLike)": ["a"],
}
sys.exit("the behaviour has changed" if found != expected else 0)
PY
HF_HUB_OFFLINE=1 "$here/venv/bin/python" "$here/run.py" "$here" 2> "$here/errors" || { cat "$here/errors"; exit 1; }
