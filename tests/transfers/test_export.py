"""`metaprime peft export`, from a transfer's cell to files that their own loaders read with our logits."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from toy_encoders import scaled
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

from metaprime.config.loading import override
from metaprime.config.sections import Config
from metaprime.interop import hf_peft, transformers_folder
from metaprime.interop.hf_peft import load_peft
from metaprime.models.encoder import load_encoder, save_encoder
from metaprime.runs.records import read_record
from metaprime.transfers import export as module
from metaprime.transfers.export import FORMATS, export
from metaprime.transfers.predict import Predictor, load
from metaprime.transfers.transfer import transfer
from metaprime.types import MetaprimeError

peft = pytest.importorskip("peft")
# peft's own loader, called as users call it, warns of transformers.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
MERGED = ("head", "full", "lora", "ia3", "bitfit", "sam", "mixout", "hf")
"""Methods after which the encoder is one of its own architecture."""
WORDS = ["Mali", "bono", "da", "Kiro"]


@pytest.fixture(scope="module")
def cells(primed_run: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output, primed = tmp_path_factory.mktemp("export"), Path(primed_run.run.output) / "primed"
    methods = f"transfer.methods=[{', '.join(MERGED)}, pfeiffer, parallel_attention]"
    keys = (f"transfer.encoder={primed}", methods, "transfer.shots=4", "transfer.lr=0.02")
    transfer(override(primed_run, f"run.output={output}", *keys), quiet=True)
    return output / "transfer" / "primed"


def cell(cells: Path, method: str) -> Path:
    return cells / f"qai-{method}-k4-s0"


def ours(tagger: Predictor, theirs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of both for a sentence."""
    batch = tagger.task.collate(tagger.task.encode([tagger.task.example(WORDS)]))
    with torch.no_grad():
        found = theirs.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return tagger.model(batch), found


def test_pefts_own_loader_reads_a_cell_from_any_folder(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cells)
    out = export("qai-lora-k4-s0", tmp_path / "deep" / "out")
    monkeypatch.chdir(tmp_path)
    loaded = peft.AutoPeftModelForTokenClassification.from_pretrained(str(out))
    tagger = load(cell(cells, "lora"))
    torch.testing.assert_close(*ours(tagger, loaded), rtol=0, atol=1e-5)
    assert tuple(loaded.config.id2label.values()) == tagger.task.labels
    assert loaded.config.label2id["B-PER"] == tagger.task.labels.index("B-PER")
    about = json.loads((out / "adapter_config.json").read_text())
    assert Path(about["base_model_name_or_path"]).is_absolute()
    with pytest.raises(MetaprimeError, match="exists: choose another folder, or remove it"):
        export(cell(cells, "lora"), out)


@pytest.mark.parametrize("method", MERGED)
def test_an_ordinary_classifier_has_our_logits_and_labels(
    cells: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cells)
    export(f"qai-{method}-k4-s0", tmp_path / "out", "transformers")
    monkeypatch.chdir(tmp_path)
    loaded = AutoModelForTokenClassification.from_pretrained("out")
    tagger = load(cell(cells, method))
    torch.testing.assert_close(*ours(tagger, loaded), rtol=0, atol=1e-5)
    assert tuple(loaded.config.id2label.values()) == tagger.task.labels


@pytest.mark.parametrize(("method", "form"), [("head", "transformers"), ("lora", "peft"), ("pfeiffer", "adapterhub")])
def test_the_scale_of_features_is_folded_into_the_exported_head(
    toy_bert: Path, primed_run: Config, tmp_path: Path, method: str, form: str
) -> None:
    small = scaled(load_encoder(str(toy_bert)), 0.1)
    save_encoder(small.module, small.tokenizer, tmp_path / "small")
    keys = (
        f"transfer.encoder={tmp_path / 'small'}",
        f"transfer.methods={method}",
        "transfer.shots=4",
        "transfer.lr=0.02",
    )
    (result,) = transfer(override(primed_run, f"run.output={tmp_path / 'run'}", *keys), quiet=True)
    tagger = load(result.path)
    assert tagger.model.scale == small.scale == 0.0625
    # Exporting compares its logits with ours before it writes anything.
    export(result.path, tmp_path / "out", form)
    if form == "transformers":
        theirs = AutoModelForTokenClassification.from_pretrained(tmp_path / "out")
        torch.testing.assert_close(*ours(tagger, theirs), rtol=0, atol=1e-6)


def test_the_pipeline_tags_as_the_tagger_does(cells: Path, tmp_path: Path) -> None:
    out = export(cell(cells, "full"), tmp_path / "out", "transformers")
    expected = load(cell(cells, "full"))([WORDS])[0]
    tokens = pipeline("token-classification", str(out), ignore_labels=[])(" ".join(WORDS))
    starts = [sum(len(word) + 1 for word in WORDS[:index]) for index in range(len(WORDS))]
    raw = {token["start"]: token["entity"] for token in tokens}
    tagger = load(cell(cells, "full"))
    batch = tagger.task.collate(tagger.task.encode([tagger.task.example(WORDS)]))
    best = [tagger.task.labels[k] for k in tagger.model(batch)[0].argmax(-1).tolist()]
    first = AutoTokenizer.from_pretrained(out)(WORDS, is_split_into_words=True).word_ids()
    assert [raw[start] for start in starts] == [best[first.index(word)] for word in range(len(WORDS))]
    assert [word for word, _ in expected] == WORDS


def test_a_foreign_encoder_needs_the_labels_and_says_so(
    primed_run: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = ("transfer.encoder=base", "transfer.methods=[lora]", "transfer.shots=4", "transfer.lr=0.02")
    transfer(override(primed_run, f"run.output={tmp_path / 'run'}", *keys), quiet=True)
    (folder,) = (tmp_path / "run" / "transfer" / "base").iterdir()
    with caplog.at_level(logging.WARNING):
        out = export(folder, tmp_path / "out")
    assert "does not name the 7 labels: peft's loader needs them as README.md" in caplog.text
    (line,) = [line for line in (out / "README.md").read_text().splitlines() if ".from_pretrained(FOLDER" in line]
    names: dict[str, Any] = {}
    exec(f"FOLDER = {str(out)!r}\nfrom peft import AutoPeftModelForTokenClassification\n{line}", names)
    tagger = load(folder)
    torch.testing.assert_close(*ours(tagger, names["model"]), rtol=0, atol=1e-5)
    assert tuple(names["model"].config.id2label.values()) == tagger.task.labels


@pytest.mark.parametrize("form", FORMATS)
def test_the_card_has_facts_and_no_blanks(cells: Path, tmp_path: Path, form: str) -> None:
    method = {"peft": "lora", "adapterhub": "pfeiffer", "transformers": "full"}[form]
    out, record = export(cell(cells, method), tmp_path / "out", form), read_record(cell(cells, method) / "record.json")
    card = ModelCard.load(out / "README.md")
    text = card.content
    assert "More Information Needed" not in text
    assert card.data.to_dict()["language"] == ["qai"]
    assert card.data.pipeline_tag == "token-classification"
    assert card.data.base_model is None  # no folder of this machine is named as a model of the hub
    tagger = load(cell(cells, method))
    for fact in (", ".join(tagger.task.labels), "4 sentences of qai of synthetic:", record["weights"]["the encoder"]):
        assert fact in text
    # A fully fine-tuned encoder is no longer the primed one.
    assert ("| primed by | peft_maml, 4 meta-steps, seed 0 |" in text) == (method != "full")
    assert f"| {tagger.task.kind.metric.of(record['scores']):.2f} |" in text
    assert f"| torch | {record['versions']['torch']} |" in text
    assert method in text.split("\n# ")[1].splitlines()[0]
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "README.md", "exec")


def test_a_primed_folder_has_a_card_of_its_priming(primed_run: Config, tmp_path: Path) -> None:
    out = export(Path(primed_run.run.output) / "primed", tmp_path / "out", "adapterhub")
    text = (out / "README.md").read_text()
    assert "primed with `pfeiffer`" in text
    assert "## Scores" not in text
    assert "4 meta-steps, seed 0" in text


@pytest.mark.parametrize(
    ("method", "form", "told"),
    [
        ("pfeiffer", "peft", r"'pfeiffer' has no equivalent in Hugging Face's peft; use --format adapterhub\. "),
        (
            "pfeiffer",
            "transformers",
            r"cannot be merged into .* weights; use --format adapterhub\. The metaprime folder",
        ),
        ("full", "peft", r"'full' has no equivalent in Hugging Face's peft; use --format transformers\. "),
        ("head", "adapterhub", r"'head' has no equivalent in AdapterHub; use --format transformers\. "),
        ("ia3", "adapterhub", r"'ia3' has no .*; use --format peft or transformers\. "),
        ("parallel_attention", "peft", r"; no other format can hold it either\. The metaprime folder itself works"),
        ("parallel_attention", "adapterhub", r"another function; no other format can hold it either\."),
    ],
)
def test_a_refusal_names_what_is_possible(cells: Path, tmp_path: Path, method: str, form: str, told: str) -> None:
    with pytest.raises(MetaprimeError, match=told):
        export(cell(cells, method), tmp_path / "out", form)
    assert not list(tmp_path.iterdir())


def test_what_is_no_artifact_leaves_nothing_behind(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(MetaprimeError, match=r"holds no metaprime\.json"):
        export(tmp_path, tmp_path / "out")
    with pytest.raises(MetaprimeError, match="--format 'onnx' is unknown: peft, adapterhub, transformers"):
        export(cell(cells, "lora"), tmp_path / "out", "onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["peft", "transformers"])
def test_files_with_other_logits_are_not_given_away(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    loader, name = (hf_peft, "load_peft") if form == "peft" else (transformers_folder, "load_transformers")
    right: Callable[..., Any] = getattr(loader, name)

    def off(*parts: Any) -> Any:
        model = right(*parts)
        next(part for name, part in model.named_parameters() if name.endswith("key.bias") is False).data.mul_(1.1)
        return model

    monkeypatch.setattr(loader, name, off)
    with pytest.raises(
        MetaprimeError, match=rf"--format {form}: .* other logits .*peft\.method lora on this BertModel"
    ):
        export(cell(cells, "lora"), tmp_path / "out", form)
    assert not list(tmp_path.iterdir())


def test_a_random_draw_is_not_given_away(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "trained_groups", lambda artifact: {"head"})
    with pytest.raises(MetaprimeError, match=r"only a random draw of adapter \(outer\.adapter"):
        export(cell(cells, "lora"), tmp_path / "out")


def test_an_encoder_of_the_hub_is_named_with_its_commit(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, primed_run: Config
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub" / "models--org--name"
    shutil.copytree(Path(primed_run.run.output) / "primed", cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    for place in ("huggingface_hub.constants", "huggingface_hub.file_download.constants"):
        monkeypatch.setattr(f"{place}.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = tmp_path / "cell"
    shutil.copytree(cell(cells, "lora"), folder)
    card = json.loads((folder / "metaprime.json").read_text())
    (folder / "metaprime.json").write_text(json.dumps(card | {"encoder": "org/name"}))
    out = export(folder, tmp_path / "out")
    about = json.loads((out / "adapter_config.json").read_text())
    assert (about["base_model_name_or_path"], about["revision"]) == ("org/name", commit)
    assert ModelCard.load(out / "README.md").data.base_model == "org/name"
    assert f"org/name at {commit}" in (out / "README.md").read_text()
    torch.testing.assert_close(*ours(load(folder), load_peft(out)), rtol=0, atol=1e-5)
