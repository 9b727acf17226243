#!/usr/bin/env bash
# transformers 5.23.0 writes tokenizer folders that AutoTokenizer of transformers 4.57.3 refuses; the fast class itself reads them.
#
# A PreTrainedTokenizerFast is one tokenizer.json and some options. One would guess that a folder which version 5 saved opens
# in version 4, as its weights (safetensors) and its config.json do, or that only new options would be missing there.
#
# Seen: version 5 writes "tokenizer_class": "TokenizersBackend", the new name of its generic class, whatever class the object
# was made by. AutoTokenizer of version 4 looks that name up, does not find it, and raises a ValueError that there is no such
# tokenizer class, or that it is not imported. It does not fall back to tokenizer.json. PreTrainedTokenizerFast of version 4,
# asked by name, reads the same folder and cuts text alike. Version 5 reads what version 4 wrote.
#
# Why it matters: libraries pinned below version 5 (such as adapters 1.x) open the encoder that a version 5 program saved by
# AutoTokenizer, as every tutorial does, and their users see a missing class where a name has changed. Remedy for the reader:
# PreTrainedTokenizerFast.from_pretrained; for the writer: set "tokenizer_class" to "PreTrainedTokenizerFast" after saving.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
for version in 4.57.3 5.23.0; do
  python3 -m venv "$here/$version"
  "$here/$version/bin/pip" install --quiet "transformers==$version"
done
cat > "$here/write.py" <<'PY'
import sys

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, PreTrainedTokenizerFast

vocabulary = {"[PAD]": 0, "[UNK]": 1, "ada": 2, "sings": 3}
tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
fast.save_pretrained(sys.argv[1])
# AutoTokenizer reads the model's type where no class is found.
BertConfig(vocab_size=4).save_pretrained(sys.argv[1])
PY
cat > "$here/read.py" <<'PY'
import json
import pathlib
import sys

import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerFast


def ids(load):
    try:
        return load(sys.argv[1])("ada sings", add_special_tokens=False)["input_ids"]
    except ValueError as error:
        return f"ValueError that names {'TokenizersBackend' if 'TokenizersBackend' in str(error) else 'something else'}"


named = json.loads((pathlib.Path(sys.argv[1]) / "tokenizer_config.json").read_text())["tokenizer_class"]
print(
    json.dumps(
        {
            "reader": transformers.__version__,
            "tokenizer_class": named,
            "AutoTokenizer": ids(AutoTokenizer.from_pretrained),
            "PreTrainedTokenizerFast": ids(PreTrainedTokenizerFast.from_pretrained),
        }
    )
)
PY
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
for writer in 4.57.3 5.23.0; do
  "$here/$writer/bin/python" "$here/write.py" "$here/by-$writer" 2> "$here/errors" || { cat "$here/errors"; exit 1; }
  for reader in 4.57.3 5.23.0; do
    "$here/$reader/bin/python" "$here/read.py" "$here/by-$writer" 2> "$here/errors" || { cat "$here/errors"; exit 1; }
  done
done | tee "$here/found"
cat > "$here/expected" <<'TEXT'
{"reader": "4.57.3", "tokenizer_class": "PreTrainedTokenizerFast", "AutoTokenizer": [2, 3], "PreTrainedTokenizerFast": [2, 3]}
{"reader": "5.23.0", "tokenizer_class": "PreTrainedTokenizerFast", "AutoTokenizer": [2, 3], "PreTrainedTokenizerFast": [2, 3]}
{"reader": "4.57.3", "tokenizer_class": "TokenizersBackend", "AutoTokenizer": "ValueError that names TokenizersBackend", "PreTrainedTokenizerFast": [2, 3]}
{"reader": "5.23.0", "tokenizer_class": "TokenizersBackend", "AutoTokenizer": [2, 3], "PreTrainedTokenizerFast": [2, 3]}
TEXT
diff "$here/expected" "$here/found" || { echo "the behaviour has changed"; exit 1; }
