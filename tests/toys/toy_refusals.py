"""Commands with a mistake that needs no model to be found, and the folder that they run in."""

from __future__ import annotations

import json
from pathlib import Path

CORPORA = {"conll": "Ada B-PER\nnaps O\n", "jsonl": '{"tokens": ["Ada"], "ner_tags": ["B-PER"]}\n', "parquet": "PAR1"}
"""Scheme -> content of each file of a corpus. Where its content is read, it is that of `conll`."""

OWN = """
run: {output: run}
encoder: {name: ./encoder}
data: {source: "conll:corpus", languages: [aa, bb], validation_languages: [cc], target_languages: [dd]}
episodes: {per_step: 2, support: 1, query: 1}
"""

FILES = {
    "own.yaml": OWN,
    "broken.yaml": "inner: {steps: 2\n",
    "list.yaml": "- inner\n",
    "suite.yaml": "name: one\nbase: own.yaml\nseeds: [0]\nsettings: {here: []}\narms: [{name: a}, {name: b, priming: null}]\n",
    "armless.yaml": "name: none\nbase: own.yaml\narms: []\n",
    "baseless.yaml": "name: one\nbase: gone.yaml\narms: [{name: meta}]\n",
    "misspelt.yaml": "name: one\nbase: own.yaml\narms: [{name: meta}]\nsedes: [0]\n",
    "wrong_arm.yaml": 'name: one\nbase: own.yaml\narms: [{name: meta, set: ["inner.stepz=3"]}]\n',
    "unfit_arm.yaml": 'name: one\nbase: own.yaml\narms: [{name: meta, set: ["learner.name=reptile", "inner.order=second"]}]\n',
    "twice.yaml": "name: one\nbase: own.yaml\narms: [{name: meta}, {name: meta}]\n",
    "encoder/config.json": '{"model_type": "bert", "hidden_size": 32}',
    "encoder/model.safetensors": "",
    "bare/config.json": "{}",
    "pickled/config.json": "{}",
    "pickled/pytorch_model.bin": "",
    "no_config/model.safetensors": "",
    "empty.txt": "",
    "words.jsonl": '{"tokens": "Ada"\n',
    "unfit.py": "raise ValueError('no')\n",
    "nothing.py": "x = 1\n",
    "foreign/notes.txt": "mine",
    "other/run.json": '{"config": {"inner": {"steps": 99}}}',
    "unread/run.json": "{",
    "suites/one/notes.txt": "mine",
    "results/results.json": "{",
    "blank/.keep": "",
}
"""Path -> content."""

ANY = {
    "no config": ("gone.yaml",),
    "folder for a config": ("corpus",),
    "not YAML": ("broken.yaml",),
    "list for sections": ("list.yaml",),
}
"""What is wrong with the file of a config -> the file and what follows it."""

KEYS = {
    "unknown section": ("iner.steps=1",),
    "misspelt key": ("inner.stepz=1",),
    "wrong type": ("inner.steps=many",),
    "wrong value": ("outer.lr=-1",),
    "no such method": ("peft.method=lra",),
    "misspelt key of a method": ("peft={method: lora, rnk: 4}",),
    "no such method to transfer with": ("transfer.methods=[lra]",),
    "no such learner": ("learner.name=mamll",),
    "no such task": ("task.name=parsing",),
    "misspelt key of the task": ("task.lables=[PER]",),
    "no equals sign": ("inner.steps",),
    "no file of own code": ("run.code=gone.py",),
    "broken file of own code": ("run.code=unfit.py",),
    "empty file of own code": ("run.code=nothing.py",),
}
"""What is wrong -> overrides of own.yaml that any command with a config refuses."""

PLACES = {
    "no scheme": ("data.source=corpus",),
    "unknown scheme": ("data.source=conl:corpus",),
    "no folder of conll": ("data.source=conll:gone",),
    "no folder of jsonl": ("data.source=jsonl:gone",),
    "no folder of parquet": ("data.source=parquet:gone",),
    "no folder of hub": ("data.source=hub:./gone",),
    "wrong seed of synthetic": ("data.source=synthetic:x",),
    "file for a folder": ("data.source=conll:own.yaml",),
    "no such language": ("data.languages=[zz]", "data.target_languages=[yy]"),
    "no such language of jsonl": ("data.source=jsonl:corpus", "data.languages=[zz]", "data.target_languages=[yy]"),
    "no such language of parquet": ("data.source=parquet:corpus", "data.languages=[zz]", "data.target_languages=[yy]"),
    "no such split": ("data.train_split=training",),
    "no language": ("data.languages=[]", "data.target_languages=[]"),
    "empty file of a corpus": ("data.languages=[empty]", "data.target_languages=[blank]"),
    "no folder of an encoder": ("encoder.name=./gone",),
    "no encoder of that name": ("encoder.name=gone/gone",),
    "encoder without a config": ("encoder.name=./no_config",),
    "encoder without weights": ("encoder.name=./bare",),
    "encoder in a pickle": ("encoder.name=./pickled",),
    "file for an output": ("run.output=own.yaml/run",),
}
"""What is wrong -> overrides of own.yaml that name what is not there."""

CONFIGURED = {
    "prime": ("prime", "{}"),
    "transfer": ("transfer", "{}", "transfer.encoder=base"),
    "estimate": ("estimate", "{}"),
    "validate": ("validate", "{}"),
    "doctor": ("doctor", "--gradients", "{}"),
    "demo": ("demo", "--seeds", "0", "{}"),
}
"""Command -> its words, with a place for the config."""

OTHERS = {
    "unknown command": ("primee",),
    "prime: unknown option": ("prime", "own.yaml", "--resum"),
    "prime: wrong time": ("prime", "own.yaml", "--max-time", "soon"),
    "prime: no such held-out language": ("prime", "own.yaml", "data.validation_languages=[zz]"),
    "prime: no folder of held-out languages": ("prime", "own.yaml", "data.validation_source=conll:gone"),
    "prime: no such held-out split": ("prime", "own.yaml", "data.validation_split=held"),
    "prime: files of others in the output": ("prime", "own.yaml", "run.output=foreign"),
    "prime: another run in the output": ("prime", "own.yaml", "run.output=other"),
    "prime: another run to resume": ("prime", "own.yaml", "run.output=other", "--resume"),
    "prime: damaged run to resume": ("prime", "own.yaml", "run.output=unread", "--resume"),
    "prime: resume and overwrite": ("prime", "own.yaml", "--resume", "--overwrite"),
    "prime: settings that do not go together": ("prime", "own.yaml", "learner.name=reptile", "inner.order=second"),
    "prime: method without an adapter": ("prime", "own.yaml", "peft.method=full"),
    "prime: no inner steps": ("prime", "own.yaml", "inner.steps=0"),
    "prime: other files in place of the encoder": ("prime", "own.yaml", "encoder.name=synthetic:", "run.output=based"),
    "estimate: settings that do not go together": (
        "estimate",
        "own.yaml",
        "learner.name=reptile",
        "inner.order=second",
    ),
    "validate: files of others in the output": ("validate", "own.yaml", "run.output=foreign"),
    "doctor: nothing to examine": ("doctor", "own.yaml"),
    "transfer: wrong time": ("transfer", "own.yaml", "--max-time", "soon"),
    "transfer: no primed encoder": ("transfer", "own.yaml"),
    "transfer: no folder of an encoder": ("transfer", "own.yaml", "transfer.encoder=./gone"),
    "transfer: unprimed start": ("transfer", "own.yaml", "transfer.encoder=base", "transfer.start_head=primed"),
    "transfer: no such split to score": ("transfer", "own.yaml", "transfer.encoder=base", "data.test_split=final"),
    "transfer: no folder of the targets": (
        "transfer",
        "own.yaml",
        "transfer.encoder=base",
        "data.target_source=conll:gone",
    ),
    "transfer: no language to choose a rate on": (
        *("transfer", "own.yaml", "transfer.encoder=base", "transfer.lr=[0.1, 0.2]", "data.validation_languages=[]"),
    ),
    "demo: override of a wrong key": ("demo", "outer.stepz=5"),
    "demo: wrong seeds": ("demo", "own.yaml", "--seeds", "x"),
    "demo: no such arm": ("demo", "own.yaml", "--arms", "metta"),
    "demo: several K": ("demo", "own.yaml", "transfer.shots=[1, 2]"),
    "demo: another run in the output": ("demo", "own.yaml", "run.output=other"),
    "ablate: no suite": ("ablate", "gone.yaml"),
    "ablate: not YAML": ("ablate", "broken.yaml"),
    "ablate: no base": ("ablate", "baseless.yaml"),
    "ablate: no arm": ("ablate", "armless.yaml"),
    "ablate: misspelt key of the suite": ("ablate", "misspelt.yaml"),
    "ablate: misspelt key of an arm": ("ablate", "wrong_arm.yaml"),
    "ablate: settings of an arm that do not go together": ("ablate", "unfit_arm.yaml"),
    "ablate: two arms of a name": ("ablate", "twice.yaml"),
    "ablate: no such setting": ("ablate", "suite.yaml", "--setting", "there"),
    "ablate: files of others in its folder": ("ablate", "suite.yaml", "run.output=suites"),
    "ablate: dry run without a corpus": ("ablate", "suite.yaml", "--dry-run", "data.source=conll:gone"),
    **{f"ablate: {what}": ("ablate", "suite.yaml", *words) for what, words in (KEYS | PLACES).items()},
    "predict: no cell": ("predict", "gone", "Ada naps"),
    "predict: file for a cell": ("predict", "own.yaml", "Ada naps"),
    "predict: no cell in it": ("predict", "blank", "Ada naps"),
    "predict: damaged card": ("predict", "damaged", "Ada naps"),
    "predict: no values beside the card": ("predict", "valueless", "Ada naps"),
    "predict: damaged values beside the card": ("predict", "cut", "Ada naps"),
    "predict: no encoder of the cell": ("predict", "homeless", "Ada naps"),
    "predict: head that was not trained": ("predict", "untrained", "Ada naps"),
    "predict: own code that is not named": ("predict", "own", "Ada naps"),
    "predict: no file of own code": ("predict", "cell", "Ada naps", "--code", "gone.py"),
    "predict: no input": ("predict", "cell", "gone.txt"),
    "predict: empty input": ("predict", "cell", "empty.txt"),
    "predict: empty sentence": ("predict", "cell", " "),
    "predict: damaged input": ("predict", "cell", "words.jsonl"),
    "predict: folder for an input": ("predict", "cell", "corpus"),
    "predict: no such form": ("predict", "cell", "empty.txt", "--format", "xml"),
    "evaluate: no cell": ("evaluate", "gone", "conll:corpus", "aa"),
    "evaluate: damaged card": ("evaluate", "damaged", "conll:corpus", "aa"),
    "evaluate: no encoder of the cell": ("evaluate", "homeless", "conll:corpus", "aa"),
    "evaluate: unknown scheme": ("evaluate", "cell", "conl:corpus", "aa"),
    "evaluate: no folder of the corpus": ("evaluate", "cell", "conll:gone", "aa"),
    "evaluate: no such language": ("evaluate", "cell", "conll:corpus", "zz"),
    "evaluate: no such split": ("evaluate", "cell", "conll:corpus", "aa", "--split", "final"),
    "report: no folder": ("report", "gone"),
    "report: nothing in it": ("report", "blank"),
    "report: file for a folder": ("report", "own.yaml"),
    "report: damaged results": ("report", "results"),
    "report: no file of own code": ("report", "blank", "--code", "gone.py"),
    "data check: no folder": ("data", "check", "conll:gone"),
    "data check: unknown scheme": ("data", "check", "conl:gone"),
    "data check: nothing in it": ("data", "check", "conll:blank"),
    "data check: no config": ("data", "check", "gone.yaml"),
    "data check: misspelt key": ("data", "check", "conll:corpus", "task.lables=[PER]"),
    "data check: no folder of an encoder": ("data", "check", "conll:corpus", "--encoder", "./gone"),
    "peft list: no folder of an encoder": ("peft", "list", "--encoder", "./gone"),
    "peft show: no encoder": ("peft", "show", "lora"),
    "peft show: no such method": ("peft", "show", "lra", "--encoder", "./encoder"),
    "peft show: misspelt key": ("peft", "show", "lora", "peft.rnk=2", "--encoder", "./encoder"),
    "peft list: no encoder of that name": ("peft", "list", "--encoder", "gone"),
    "peft show: no folder of an encoder": ("peft", "show", "lora", "--encoder", "./gone"),
    "peft export: no cell": ("peft", "export", "gone", "out"),
    "peft export: no cell in it": ("peft", "export", "blank", "out"),
    "peft export: damaged card": ("peft", "export", "damaged", "out"),
    "peft export: no encoder of the cell": ("peft", "export", "homeless", "out"),
    "peft export: adapter that was not trained": ("peft", "export", "untrained", "out"),
    "peft export: no such form": ("peft", "export", "cell", "out", "--format", "onnx"),
    "peft export: folder that exists": ("peft", "export", "cell", "corpus"),
}

REFUSALS = {
    **{
        f"{command}: {what}": tuple(words[0] if word == "{}" else word for word in pattern) + words[1:]
        for command, pattern in CONFIGURED.items()
        for what, words in (ANY | {what: ("own.yaml", *changes) for what, changes in (KEYS | PLACES).items()}).items()
    },
    **OTHERS,
}
"""Command and mistake -> words of the command, in a folder that `lay_out` has filled."""


OFFLINE = {"HF_HUB_OFFLINE": "1"}
"""Environment of the commands: names that may be hub ids are looked up among those that were downloaded."""


def lay_out(folder: Path) -> None:
    """Writes the files that the commands name."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    for language in ("aa", "bb", "cc", "dd", "empty", "blank"):
        for split in ("train", "validation", "test"):
            for form, text in CORPORA.items():
                file = folder / "corpus" / language / f"{split}.{form}"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("" if language in ("empty", "blank") else text, "utf-8")
    (folder / "based" / "base").mkdir(parents=True)
    (folder / "based" / "base" / "notes.txt").write_text("mine", "utf-8")
    for name, changes in CARDS.items():
        (folder / name).mkdir()
        card = changes if isinstance(changes, str) else json.dumps(CARD | changes)
        (folder / name / "metaprime.json").write_text(card, "utf-8")
        if name != "valueless":
            # An empty header behind its length.
            (folder / name / "metaprime.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}" * (name != "cut"))


CARD = {
    "peft": {"method": "lora"},
    "task": {"name": "tagging"},
    "labels": ["O", "B-PER", "I-PER"],
    "encoder": "../encoder",
    "provenance": {"kind": "tuned", "encoder_weights": "0" * 64},
}
"""The card of a cell."""

_PRIMED = {"learner": {"name": "peft_maml"}, "outer": {"adapter": "reset", "head": "reset"}}

CARDS: dict[str, str | dict[str, object]] = {
    "cell": {},
    "damaged": "{",
    "valueless": {},
    "cut": {},
    "homeless": {"encoder": "../gone"},
    "untrained": {"provenance": {"kind": "primed", "encoder_weights": "0" * 64, "config": _PRIMED}},
    "own": {"peft": {"method": "mine"}, "code": {"mine.py": "0" * 64}},
}
"""Folder -> what its card says otherwise, or the whole card."""
