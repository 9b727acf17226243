"""`check_data` on corpora with planted faults."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from toy_corpus import SIZES, corpus
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from metaprime.preflight.corpus import check_data
from metaprime.types import MetaprimeError


def kinds(report: object) -> dict[str, tuple[str, str, int]]:
    return {f.kind: (f.severity, f.where, f.count) for f in report.findings}  # type: ignore[attr-defined]


def test_a_clean_source_is_clean(tmp_path: Path) -> None:
    report = check_data(f"conll:{corpus(tmp_path, 'qaa', 'qaf')}")
    assert report.clean
    assert {name: facts["sentences"] for name, facts in report.splits.items()} == {
        f"{language}/{split}": size for language in ("qaa", "qaf") for split, size in SIZES.items()
    }
    assert list(report.splits["qaf/train"]["scripts"]) == ["greek"]
    assert len(report.rows()) == 6
    assert report.lines()[-1].startswith("6 splits read: 0 fatal, 0 problem")


def test_planted_faults_are_found_and_nothing_else(tmp_path: Path) -> None:
    root = corpus(tmp_path, "qaa", "qab")
    train, test = root / "qaa" / "train.conll", root / "qaa" / "test.conll"
    first = train.read_text("utf-8").split("\n\n")[0]
    test.write_text(test.read_text("utf-8") + "\n" + first + "\n", "utf-8")  # leak
    train.write_text(train.read_text("utf-8") + "\nword\tO\nname\tI-PER\nother\tO\n\n", "utf-8")  # opens with I-
    (root / "qab" / "validation.conll").unlink()
    (root / "qab" / "train.conll").write_text("a\tO\nb\tB-PER\n", "utf-8")
    report = check_data(f"conll:{root}")
    assert not report.clean
    severities = {kind: (severity, where) for kind, (severity, where, _) in kinds(report).items()}
    assert severities["overlap"][0] == "problem"
    assert set(severities["overlap"][1].split(" & ")) == {"qaa/train", "qaa/test"}
    assert severities["invalid tag sequence"] == ("problem", "qaa/train")
    assert severities["unreadable"] == ("fatal", "qab/validation")
    assert severities["too small"] == ("fatal", "qab/train")
    assert set(severities) <= {"overlap", "invalid tag sequence", "unreadable", "too small", "duplicates"}
    assert [f.severity for f in report.findings] == sorted((f.severity for f in report.findings), key=ORDER.index)


def test_a_choice_of_columns_is_one_note_for_all_files_alike_and_can_be_overruled(tmp_path: Path) -> None:
    root = corpus(tmp_path, "qaa", "qaf")
    for file in root.rglob("*.conll"):
        lines = file.read_text("utf-8").splitlines()
        file.write_text("\n".join(f"{line}\tO" if line else "" for line in lines) + "\n", "utf-8")
    report = check_data(f"conll:{root}")
    (note,) = report.findings
    assert (note.severity, note.kind, note.count, report.clean) == ("note", "chosen columns", 6, True)
    assert note.text == "column 2 is read as the tags, though column 3 could be too; task.tags chooses another"
    assert note.where.endswith(" and 3 more")
    assert len(note.examples) == 3
    assert report.splits["qaa/train"]["entities"]
    overruled = check_data(f"conll:{root}", ["task.tags=3"])
    assert overruled.splits["qaa/train"]["entities"] == {}
    assert {finding.kind for finding in overruled.findings} == {"no entity"}


ORDER = ("fatal", "problem", "note")


def test_labels_are_taken_as_they_are_unless_named(tmp_path: Path) -> None:
    root = corpus(tmp_path, "qaa")
    for file in (root / "qaa").iterdir():
        file.write_text(file.read_text("utf-8").replace("-LOC", "-GPE"), "utf-8")
    assert "GPE" in check_data(f"conll:{root}").splits["qaa/train"]["entities"]
    named = check_data(f"conll:{root}", ["task.labels=[PER,ORG,LOC]"])
    assert kinds(named)["unmapped type"][0] == "problem"
    mapped = check_data(f"conll:{root}", ["task.labels=[PER,ORG,LOC]", "task.label_map={GPE: LOC}"])
    assert mapped.clean


def test_a_config_is_checked_by_what_it_reads(tmp_path: Path) -> None:
    root = corpus(tmp_path / "corpus", "qaa", "qab", "qac")
    file = tmp_path / "run.yaml"
    file.write_text(
        f"data: {{source: 'conll:{root}', languages: [qaa], validation_languages: [qab], target_languages: [qac]}}\n"
        "episodes: {support: 2, query: 4}\ntransfer: {shots: 10}\n",
        "utf-8",
    )
    report = check_data(str(file))
    assert {name: facts["role"] for name, facts in report.splits.items()} == {
        "qaa/train": "priming",
        "qab/train": "held out",
        "qab/validation": "held out",
        "qac/train": "target",
        "qac/test": "target",
    }
    assert report.clean
    untrained = check_data(str(file), ["transfer.shots=0"])
    assert set(untrained.splits) == {"qaa/train", "qab/validation", "qac/test"}
    first = (root / "qaa" / "train.conll").read_text("utf-8").split("\n\n")[0]
    test = root / "qac" / "test.conll"
    test.write_text(test.read_text("utf-8") + "\n" + first + "\n", "utf-8")
    assert kinds(check_data(str(file)))["overlap"] == ("problem", "qaa/train & qac/test", 1)
    assert kinds(check_data(str(file), ["transfer.shots=500"]))["too small"][0] == "fatal"


def test_a_tokenizer_adds_what_the_encoder_cannot_see(tmp_path: Path, toy_bert: Path) -> None:
    root = corpus(tmp_path, "qaa")
    report = check_data(f"conll:{root}", ["data.max_length=12"], encoder=str(toy_bert))
    facts = report.splits["qaa/train"]
    assert facts["subwords_per_word"] > 1
    assert facts["longest_subwords"] > 12
    assert kinds(report)["long sentences"][0] == "note"
    assert kinds(check_data(f"conll:{root}", ["data.max_length=12", "data.long=truncate"], encoder=str(toy_bert)))[
        "entities lost"
    ][0] == ("problem")


def test_what_is_said_of_a_tokenizers_spaces_is_a_note(tmp_path: Path) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: i for i, letter in enumerate(["[PAD]", *letters])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]").save_pretrained(tmp_path / "glued")
    root, encoder = corpus(tmp_path, "qaa"), str(tmp_path / "glued")
    report = check_data(f"conll:{root}", encoder=encoder)
    assert kinds(report)["spacing"] == ("note", encoder, 1)
    (line,) = [line for line in report.lines() if line.startswith(f"note: {encoder}: ")]
    assert "cut otherwise than in running text" in line
    assert "encoder.spacing: none" in line
    assert "spacing" not in kinds(check_data(f"conll:{root}", ["encoder.spacing=none"], encoder=encoder))


@pytest.mark.parametrize("what", ["nowhere:x", "conll:/no/such/folder", "no.yaml"])
def test_misuse_is_an_error(what: str) -> None:
    with pytest.raises(MetaprimeError):
        check_data(what)


def test_each_split_is_told_before_it_is_read(tmp_path: Path) -> None:
    root = corpus(tmp_path, "qaa", "qaf")
    (root / "qaf" / "test.conll").unlink()
    lines: list[str] = []
    report = check_data(f"conll:{root}", progress=lines.append)
    names = [f"{language}/{split}" for language in ("qaa", "qaf") for split in ("train", "validation", "test")]
    assert lines == [f"{number} of 6: {name}" for number, name in enumerate(names, start=1)]
    assert report.lines() == check_data(f"conll:{root}").lines()


def test_a_check_without_an_encoder_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from metaprime.preflight.corpus import check_data; "
        f"assert check_data('conll:{corpus(tmp_path, 'qaa')}').clean; "
        "print(sorted({'torch', 'transformers', 'accelerate'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("task={name: classification, labels: [bad, good], text: a}", "unmapped type"),
        ("task={name: classification, preset: glue/sst2, text: a}", "unmapped type"),
        ("task={name: regression, text: a, label: score, range: [0, 5]}", "out of range"),
    ],
)
def test_answers_that_a_task_names_restrict_those_of_a_source(tmp_path: Path, task: str, kind: str) -> None:
    (tmp_path / "en").mkdir()
    rows = [{"a": f"text {number}", "label": "fine", "score": 7} for number in range(3)]
    (tmp_path / "en" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    found = check_data(f"jsonl:{tmp_path}", [task])
    assert kind in {finding.kind for finding in found.findings}
    # Without names every answer is taken.
    free = check_data(f"jsonl:{tmp_path}", ["task={name: classification, text: a}"])
    assert {finding.kind for finding in free.findings}.isdisjoint({"unmapped type", "out of range"})


def test_a_task_that_contradicts_itself_is_refused_and_no_fault_of_the_source(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    with pytest.raises(MetaprimeError, match=r"task\.choices is \['a'\]: name the columns of at least two"):
        check_data(f"jsonl:{tmp_path}", ["task={name: multiple_choice, choices: [a]}"])
    with pytest.raises(MetaprimeError, match=r"task\.labels is \['bad'\]: list at least two classes"):
        check_data(f"jsonl:{tmp_path}", ["task={name: classification, labels: [bad]}"])


def test_sub_words_of_a_whole_text_are_counted_by_its_words(tmp_path: Path, toy_bert: Path) -> None:
    (tmp_path / "en").mkdir()
    rows = [{"text": "mali bono dabi", "label": name} for name in ("a", "b")]
    (tmp_path / "en" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    found = check_data(f"jsonl:{tmp_path}", ["task={name: classification}"], encoder=str(toy_bert))
    pieces = AutoTokenizer.from_pretrained(toy_bert)("mali bono dabi", add_special_tokens=False)["input_ids"]
    assert found.splits["en/train"]["subwords_per_word"] == len(pieces) / 3
