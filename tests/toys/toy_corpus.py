"""A CoNLL corpus of synthetic languages in which nothing is wrong."""

from __future__ import annotations

from pathlib import Path

from metaprime.data.readers import synthetic

SIZES = {"train": 60, "validation": 20, "test": 20}


def corpus(folder: Path, *languages: str) -> Path:
    """Synthetic sentences as CoNLL files, all texts different."""
    for language in languages:
        for split, size in SIZES.items():
            sentences = {" ".join(s.words): s for s in synthetic.read("", language, split)}
            for other in SIZES:
                if other != split:
                    for twin in synthetic.read("", language, other):
                        sentences.pop(" ".join(twin.words), None)
            file = folder / language / f"{split}.conll"
            file.parent.mkdir(parents=True, exist_ok=True)
            chosen = list(sentences.values())[:size]
            text = "\n".join("".join(f"{w}\t{t}\n" for w, t in zip(s.words, s.gold, strict=True)) for s in chosen)
            file.write_text(text, "utf-8")
    return folder
