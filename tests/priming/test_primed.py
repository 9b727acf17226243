"""A primed folder is a plain Hugging Face encoder; read with metaprime, it is adapter, head and provenance too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_config import MakeConfig
from transformers import AutoModel

from metaprime.build.kind import kinds_of
from metaprime.config.sections import Config
from metaprime.models.encoder import load_encoder
from metaprime.priming.prime import prime
from metaprime.priming.primed import PrimedEncoder
from metaprime.runs.log import read_metrics
from metaprime.types import MetaprimeError

LOAD_WITHOUT_US = """
import json, sys, warnings
warnings.simplefilter("error")

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "metaprime":
            raise ImportError("there is no metaprime here")

sys.meta_path.insert(0, Blocked())
import torch
from transformers import AutoModel, AutoTokenizer
folder, text = sys.argv[1:]
model, info = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
tokenizer = AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    hidden = model.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state
print(json.dumps({"info": {key: sorted(map(str, value)) for key, value in info.items()}, "hidden": hidden.tolist()}))
"""


def primed_by(config: Config) -> PrimedEncoder:
    return PrimedEncoder(Path(config.run.output) / "primed")


def test_the_primed_encoder_loads_where_there_is_no_metaprime(primed_run: Config) -> None:
    folder = primed_by(primed_run).path
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOAD_WITHOUT_US, str(folder), "bada kulo ."],
        capture_output=True,
        text=True,
        timeout=120,
        env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    for word in ("newly initialized", "not used", "MISSING", "UNEXPECTED", "Warning"):
        assert word not in done.stderr
    found = json.loads(done.stdout)
    assert not any(found["info"].values()), found["info"]
    ours = load_encoder(str(folder))
    with torch.no_grad():
        expected = ours.module(**ours.tokenizer("bada kulo .", return_tensors="pt")).last_hidden_state
    assert torch.allclose(torch.tensor(found["hidden"]), expected, atol=1e-5)


def test_it_offers_what_lies_in_the_folder(primed_run: Config) -> None:
    primed = primed_by(primed_run)
    plain = AutoModel.from_pretrained(primed.path).state_dict()
    own = primed.model.state_dict()
    assert plain.keys() == own.keys()
    assert all(torch.equal(value, own[name]) for name, value in plain.items())
    assert primed.model is primed.model
    assert (
        primed.tokenizer("bada kulo .")["input_ids"]
        == load_encoder(str(primed.path)).tokenizer("bada kulo .")["input_ids"]
    )
    stored = load_file(primed.path / "metaprime.safetensors")
    offered = {f"adapter.{name}": value for name, value in primed.adapter.items()}
    offered |= {f"head.{name}": value for name, value in primed.head.items()}
    assert offered.keys() == stored.keys()
    assert set(primed.head) == {"weight", "bias"}
    assert all(torch.equal(value, stored[name]) for name, value in offered.items())
    card = json.loads((primed.path / "metaprime.json").read_text("utf-8"))
    assert primed.provenance == card["provenance"]


def test_it_can_be_given_wherever_a_path_can(primed_run: Config) -> None:
    primed = primed_by(primed_run)
    assert os.fspath(primed) == str(Path(primed)) == str(primed.path)
    assert (Path(primed) / "model.safetensors").is_file()
    # transformers takes the text of what it is given.
    assert AutoModel.from_pretrained(primed).config.model_type == "bert"


def test_it_is_what_priming_returns_and_reads_nothing_before_it_is_asked(tiny: MakeConfig, tmp_path: Path) -> None:
    changes = ("outer.validate_every=0", "outer.steps=1", "learner.name=multitask")
    primed = prime(tiny(tmp_path / "run", *changes), quiet=True)
    assert primed == PrimedEncoder(tmp_path / "run" / "primed")
    assert primed.adapter == {}
    assert set(primed.head) == {"weight", "bias"}
    missing = PrimedEncoder(tmp_path / "nowhere")
    for ask in (lambda: missing.model, lambda: missing.head, lambda: missing.provenance):
        with pytest.raises(MetaprimeError, match=r"nowhere does not exist: give a folder"):
            ask()


def test_an_encoder_that_was_exchanged_is_refused(tiny: MakeConfig, tmp_path: Path) -> None:
    primed = prime(tiny(tmp_path / "run", "outer.validate_every=0", "outer.steps=1"), quiet=True)
    load_encoder(tiny(tmp_path).encoder.name).module.save_pretrained(primed.path)
    with pytest.raises(MetaprimeError, match="restore that encoder, or train again"):
        _ = primed.model


def test_provenance_says_where_the_weights_come_from(primed_run: Config) -> None:
    folder = primed_by(primed_run).path
    found = json.loads((folder / "metaprime.json").read_text("utf-8"))
    base = load_encoder(primed_run.encoder.name)
    provenance = found["provenance"]
    assert found["encoder"] == "."
    assert found["peft"] == primed_run.peft.model_dump(mode="json")
    assert found["task"] == primed_run.task.model_dump(mode="json")
    assert found["labels"] == ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
    asked = primed_run.at_rates(*kinds_of(primed_run.encoder, primed_run.transfer))
    assert provenance["config"] == asked.model_dump(mode="json")
    assert provenance["base"] == primed_run.encoder.name
    assert provenance["base_weights"] == base.weights
    assert provenance["encoder_weights"] == load_encoder(str(folder)).weights != base.weights
    assert (provenance["seed"], provenance["processes"], provenance["kind"]) == (0, 1, "primed")
    assert provenance["versions"]["torch"] == torch.__version__
    lines = read_metrics(Path(primed_run.run.output))
    best = max(lines, key=lambda line: (line.get("validation_f1", -1), line["step"]))
    assert (provenance["steps"], provenance["validation_f1"]) == (best["step"], best["validation_f1"])
    made = {"host", "pid", "written", "cpu", "instructions", "threads", "commit"}
    assert set(provenance["volatile"]) == {*made, "batches"}
    assert provenance["volatile"]["batches"] == "packed"
