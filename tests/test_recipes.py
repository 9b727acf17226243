"""Every YAML that ships, found on disk, runs: two meta-steps on a toy encoder, then a transfer; and the thin scripts."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import BertConfig, BertModel

from metaprime import load_config, prime, transfer
from metaprime.config.presets import EMBEDDED
from metaprime.config.sections import Config
from metaprime.data.readers import synthetic
from metaprime.data.rows import Example
from metaprime.models.sites import BERT, resolve
from metaprime.peft import METHODS, MethodConfig
from metaprime.suite.ablate import ablate
from metaprime.suite.recorded import SHORTENED
from metaprime.suite.spec import ArmPlan, read_plan
from metaprime.tasks.classification.settings import ClassificationConfig
from metaprime.tasks.tagging.settings import TaggingConfig

ROOT = Path(__file__).parents[1]
YAMLS = sorted((ROOT / "recipes").rglob("*.yaml"))
CONFIGS = [path for path in YAMLS if path.parent.name == "configs"]
SUITES = [path for path in YAMLS if path.parent.name == "ablations"]
SMALL = (
    "outer.steps=2",
    "outer.validate_every=2",
    "episodes.support=2",
    "episodes.query=2",
    "transfer.shots=4",
    "transfer.seeds=0",
    "transfer.steps=2",
    "transfer.batch=2",
    "transfer.test_sentences=5",
)


def test_all_are_found() -> None:
    names = {path.name for path in CONFIGS}
    assert names == {
        "afrisenti.yaml",
        "demo.yaml",
        "fu_tasks.yaml",
        "masakhapos.yaml",
        "minilm_wikiann.yaml",
        "reconstruction_mbert_wikiann.yaml",
        "smoke.yaml",
        "synthetic.yaml",
    }
    assert len(SUITES) == 17
    assert [*SUITES, *CONFIGS] == YAMLS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_runs(path: Path, tmp_path: Path, toy_bert: Path) -> None:
    config = load_config(path)
    changes = [*SMALL, f"encoder.name={toy_bert}", f"run.output={tmp_path / 'run'}"]
    if config.data.source != "synthetic:":
        changes += stand_in(config, tmp_path)
    config = load_config(path, changes)
    primed = prime(config)
    assert (primed.path / "model.safetensors").is_file()
    results = transfer(config)
    assert len(results) == len(config.transfer.methods) * len(config.data.target_languages)


def stand_in(config: Config, folder: Path) -> list[str]:
    """The config's corpora in the layout it asks for, filled with synthetic sentences."""
    changes = []
    sources = {"source": [*config.data.languages]}
    for key, others in (
        ("validation_source", config.data.validation_languages),
        ("target_source", config.data.target_languages),
    ):
        sources.setdefault(key if getattr(config.data, key) else "source", []).extend(others)
    for key, languages in sources.items():
        form = getattr(config.data, key).partition(":")[0]
        assert form in ("parquet", "jsonl")
        for place, language in enumerate(languages):
            for split in (config.data.train_split, config.data.validation_split, config.data.test_split):
                file = folder / key / language / f"{split}.{form}"
                file.parent.mkdir(parents=True, exist_ok=True)
                sentences = synthetic.read("", synthetic.LANGUAGES[place], split, getattr(config.task, "spans", True))
                table = pa.table(columns_of(config, sentences[:120]))
                if form == "parquet":
                    pq.write_table(table, file)
                else:
                    file.write_text("\n".join(map(json.dumps, table.to_pylist())) + "\n", "utf-8")
        changes.append(f"data.{key}={form}:{folder / key}")
    return changes


def columns_of(config: Config, sentences: Sequence[Example]) -> dict[str, Any]:
    """The columns that the config's task reads."""
    if isinstance(config.task, ClassificationConfig):
        labels = [config.task.labels[number % len(config.task.labels)] for number in range(len(sentences))]
        texts = [" ".join(s.words) for s in sentences]
        pair = {config.task.pair: texts[::-1]} if config.task.pair else {}
        return {config.task.text: texts, **pair, config.task.label: labels}
    assert isinstance(config.task, TaggingConfig)
    tags = "ner_tags" if config.task.spans else "upos"
    return {"tokens": [s.words for s in sentences], tags: [s.gold for s in sentences]}


def test_synthetic_yaml_spells_out_the_defaults_and_demo_yaml_what_the_demonstration_changes() -> None:
    defaults = load_config(None, ["run.output=runs/synthetic"])
    assert load_config(ROOT / "recipes/configs/synthetic.yaml") == defaults.at_rates(EMBEDDED, EMBEDDED)
    changed = load_config(None, SHORTENED).at_rates(EMBEDDED, EMBEDDED)
    assert load_config(ROOT / "recipes/configs/demo.yaml") == changed


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_opens_with_its_command(path: Path) -> None:
    assert f"recipes/{path.parent.name}/{path.name}" in path.read_text("utf-8").splitlines()[0]


SEEDS = {"sparse_stability": 10, "fu_tasks": 10, "every_method": 2}


@pytest.mark.parametrize("setting", ["synthetic", "reconstruction"])
@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_suite_resolves(path: Path, setting: str) -> None:
    if path.stem in ("understanding", "fu_tasks", "he_glue") and setting == "reconstruction":
        pytest.skip("its tasks are not those of the paper")
    if (path.stem, setting) == ("unified_view", "reconstruction"):
        pytest.skip("its widths are shares of the small encoder's parameters")
    plan = read_plan(path, setting=setting)
    assert plan.name == path.stem
    assert plan.seeds == tuple(range(SEEDS.get(path.stem, 5)))
    assert plan.tune
    for arm in plan.arms.values():
        if arm.primer and arm.primer.config.learner.name == "multitask":
            assert arm.primer.config.outer.lr == plan.base.outer.lr / 2


@pytest.mark.parametrize(
    ("suite", "setting"),
    [
        *(("understanding", name) for name in ("pairs", "parts_of_speech", "afrisenti", "masakhapos")),
        *(("fu_tasks", name) for name in ("cb", "copa", "wsc", "cola", "stsb")),
        *(("he_glue", name) for name in ("classes", "sst2", "mnli")),
    ],
)
def test_other_settings_resolve(suite: str, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The hub's config of an encoder is asked for its kind; without an answer its name tells, after five tries.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    plan = read_plan(ROOT / f"recipes/ablations/{suite}.yaml", setting=setting)
    plan.base.task.check()
    assert all(arm.target.config.task == plan.base.task for arm in plan.arms.values())
    if suite == "fu_tasks":
        assert plan.base.data.target_languages == (setting,)
    if setting == "sst2":
        assert (plan.base.data.train_split, plan.base.data.test_split) == ("validation", "test")


def test_the_matched_baseline_has_the_steps_that_its_flops_allow() -> None:
    plan = read_plan(ROOT / "recipes/ablations/paper_tweaks.yaml", setting="synthetic")
    matched = plan.arms[plan.matched["meta"]].primer
    assert matched
    assert matched.config.outer.steps == round(plan.base.outer.steps * 470 / 585) == 241
    assert ("meta", plan.matched["meta"]) in plan.contrasts


FEW = (
    "seeds=0",
    "data.languages=[qaa, qaf]",
    "data.validation_languages=[qad]",
    "data.target_languages=[qai]",
    "transfer.lr=[0.01]",
    "transfer.leave_out=0",
    "episodes.per_step=2",
    "inner.steps=2",
    "peft={method: pfeiffer, bottleneck: 4}",
)


@pytest.mark.slow
@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_suite_runs(path: Path, tmp_path: Path, toy_bert: Path) -> None:
    changes = [*SMALL, *FEW, f"encoder.name={toy_bert}", f"run.output={tmp_path / 'run'}"]
    if path.stem == "kshot":
        changes.append("transfer.shots=[2, 4]")
    if path.stem == "steps":
        changes.append("axes={outer.steps: [1, 2]}")
    if path.stem == "paper_tweaks":
        # Four fifths of two steps are two: the arm of equal compute would be the one of equal steps.
        changes.append("outer.steps=4")
    results = ablate(path, changes, setting="synthetic", jobs=1)
    assert results["failed"] == []
    cells = len(results["arms"]) * len(results["methods"]) * len(results["shots"])
    assert len(results["records"]) == cells
    assert (tmp_path / "run" / path.stem / "table.md").is_file()


def test_reconstruction_says_of_every_value_where_it_is_from() -> None:
    import yaml

    path = ROOT / "recipes/configs/reconstruction_mbert_wikiann.yaml"
    values = yaml.safe_load(path.read_text("utf-8"))
    provenance = values.pop("provenance")
    placement = {"run", "data.source"}  # where things are kept is no hyper-parameter
    said = {f"{section}.{key}" for section, keys in values.items() for key in keys if section not in placement}
    assert set(provenance) == said - placement


def test_every_method_is_every_method() -> None:
    plan = read_plan(ROOT / "recipes/ablations/every_method.yaml")
    primed = {arm.primer.config.peft.method for arm in plan.arms.values() if arm.primer}
    assert primed == {name for name, method in METHODS.items() if not method.moves_backbone} - {"head"}
    assert {own_method(arm).method for arm in plan.arms.values()} == primed
    for arm in plan.arms.values():
        assert arm.primer is None or arm.primer.config.peft == own_method(arm)
    assert plan.columns == ("own",)


def test_the_unified_view_compares_at_matched_budgets() -> None:
    """Within a tenth of 0.1, 1 and 7 % of 846,592 parameters, but where the smallest there is comes to more."""
    plan = read_plan(ROOT / "recipes/ablations/unified_view.yaml")
    with torch.device("meta"):
        shape = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
        encoder = BertModel(BertConfig(vocab_size=10, **shape))
    for name, arm in plan.arms.items():
        if not arm.line:
            continue
        config, share = own_method(arm), float(name.split()[-2])
        modules = METHODS[config.method].inject(resolve(copy.deepcopy(encoder), BERT), config)
        found = 100 * sum(parameter.numel() for parameter in modules.parameters()) / 846_592
        if share > 0.1:
            assert abs(found / share - 1) < 0.1, name
        else:
            assert found < 0.31, name


def own_method(arm: ArmPlan) -> MethodConfig:
    """The one method that an arm is tuned with."""
    (method,) = arm.target.config.methods().values()
    return method


@pytest.mark.parametrize("name", ["unified_view", "sparse_stability"])
def test_a_suite_that_primes_nothing_says_nothing_of_a_learner(name: str) -> None:
    path = ROOT / "recipes/ablations" / f"{name}.yaml"
    assert "learner" not in path.read_text("utf-8")
    plan = read_plan(path)
    assert not any(arm.primer for arm in plan.arms.values())
    assert {"full", "head"} <= {own_method(arm).method for arm in plan.arms.values()}


def test_an_unknown_method_in_a_recipe_would_be_noticed() -> None:
    assert {method for path in CONFIGS for method in load_config(path).methods()} <= {*METHODS}


def test_scripts(tmp_path: Path, toy_bert: Path) -> None:
    smoke = str(ROOT / "recipes/configs/smoke.yaml")
    changes = [*SMALL, f"encoder.name={toy_bert}", f"run.output={tmp_path / 'run'}", "transfer.methods=[head]"]
    for script, said in (("prime.py", "primed encoder:"), ("transfer.py", "│ qai")):
        command = [sys.executable, str(ROOT / "recipes" / script), smoke, *changes]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
