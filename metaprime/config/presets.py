"""Learning rates by size and kind of the encoder, for the keys that a config leaves null.

No rate serves all encoders: 2e-3, the best outer rate of the embedded two-layer BERT, makes all
hidden states of MiniLM equal within ten meta-steps. `benchmarks/rates.py` measures the presets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

EMBEDDED_WIDTH, MEASURED_WIDTH = 128, 384
"""Hidden width of the embedded encoder, and of the pretrained ones that rates were measured on."""

EMBEDDED_TRANSFER = (1e-2, 3e-3, 3e-2)
"""Transfer rates of the embedded encoder, of which held-out languages choose one."""

ABOVE = 10.0
"""A rate this many times above the preset's is reported before a run."""


@dataclass(frozen=True)
class Kind:
    """Size and kind of an encoder, as far as rates depend on them.

    Attributes:
        width: hidden width D.
        embedded: whether it is an embedded encoder, pre-trained by this package.
    """

    width: int = EMBEDDED_WIDTH
    embedded: bool = True

    @property
    def measured(self) -> bool:
        """True if rates were measured on an encoder of this kind that is at least as wide."""
        return self.embedded or self.width <= MEASURED_WIDTH


EMBEDDED = Kind()
"""The embedded encoder."""


@dataclass(frozen=True)
class Preset:
    """The rates of one kind of encoder.

    Attributes:
        name: its name in messages.
        inner: section `inner`, key -> rate.
        outer: section `outer`, key -> rate; null where the key stands for `lr`.
        transfer: section `transfer`, key -> rate or rates.
    """

    name: str
    inner: dict[str, Any]
    outer: dict[str, Any]
    transfer: dict[str, Any]

    def fill(self, section: str, values: dict[str, Any]) -> dict[str, Any]:
        """Returns the rates for the keys that a section leaves null: `preset.fill("outer", {"lr": None})`.

        A section with a rate of its own under `lr` is left as it is: its other rates stand for that one.
        """
        if values["lr"] is not None:
            return {}
        filled = {key: rate for key, rate in getattr(self, section).items() if values[key] is None}
        if values.get("method_lr"):
            filled["method_lr"] = self.transfer.get("method_lr", {}) | values["method_lr"]
        return filled


def preset_of(kind: Kind, methods: dict[str, float]) -> Preset:
    """Returns the rates of a kind of encoder.

    Rates of encoders wider than those measured are scaled by the inverse of the width (Yang et al.
    2022, arXiv 2203.03466, on Adam's hidden weights); they are a guess that a run reports.

    Args:
        kind: size and kind of the encoder.
        methods: name of each PEFT method -> its transfer rate at `MEASURED_WIDTH`.

    Example: `preset_of(Kind(), {}).outer["lr"]` is 0.002.
    """
    if kind.embedded:
        return Preset(
            "the embedded encoder",
            inner={"lr": 0.1},
            outer={"lr": 2e-3},
            transfer={"lr": EMBEDDED_TRANSFER},
        )
    share = min(1.0, MEASURED_WIDTH / kind.width)
    return Preset(
        f"a pretrained encoder of width {kind.width}",
        inner={"lr": 0.1},
        outer={"lr": _two_digits(1e-4 * share), "adapter_lr": _two_digits(2e-3 * share), "head_lr": 2e-3},
        transfer={"method_lr": {name: (_two_digits(rate * share),) for name, rate in methods.items()}, "head_lr": 1e-2},
    )


def pretrain_rate(hidden: int) -> float:
    """Returns the pre-training rate of an embedded encoder of a hidden width: `pretrain_rate(128)` is 0.002."""
    return _two_digits(2e-3 * min(1.0, EMBEDDED_WIDTH / hidden))


def far_above(rates: Iterable[tuple[str, float | None, float]]) -> list[str]:
    """Returns a sentence for each rate far above the preset's.

    Args:
        rates: key, rate, and the preset's rate.

    Example: `far_above([("outer.lr", 2e-3, 1e-4)])`.
    """
    return [
        f"{key} {rate:g} is {rate / usual:.0f} times the preset for encoders of this kind ({usual:g}), which may make all "
        f"hidden states equal: leave {key.partition(' ')[0]} out to take the preset"
        for key, rate, usual in rates
        if rate is not None and rate > ABOVE * usual
    ]


def _two_digits(rate: float) -> float:
    """Returns a rate rounded to two significant digits."""
    return float(f"{rate:.2g}")
