"""The formats of exports: each is there under its name."""

from __future__ import annotations

from metaprime.interop.formats import FORMATS, Format
from metaprime.interop.hf_peft import peft_model


def test_every_name_leads_to_a_format() -> None:
    assert list(FORMATS) == ["peft", "adapterhub", "transformers"]
    assert all(isinstance(value, Format) for value in FORMATS.values())
    assert FORMATS["peft"].convert is peft_model
