"""Writes a suite's title and its finding in one sentence, which claims no more than the corrected intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping

from metaprime.reports.read import Suite, short_titles
from metaprime.reports.scores import ContrastKey
from metaprime.reports.wording import limits, signed, subtraction
from metaprime.stats.intervals import Contrast

NAMED = 3
"""Largest number of contrasts that the sentence about many pairs names."""


def title_of(suite: Suite) -> str:
    """Returns name, encoder, data and date of a suite, as far as they are known: `title_of(suite)`."""
    results = suite.results
    name = f"{results.name} ({results.setting})" if results.setting else results.name
    written = [str(t.record.get("volatile", {}).get("written", "")) for t in suite.transfers]
    facts = [
        f"{what} {value}"
        for what, section, key in (("encoder", "encoder", "name"), ("data", "data", "source"))
        if (value := str(results.config.get(section, {}).get(key, "")).rstrip(":/").split("/")[-1])
    ]
    day = max(written, default="")[:10]
    return ", ".join([name, *facts, *([day] if day else [])])


def finding(suite: Suite, contrasts: Mapping[ContrastKey, Contrast]) -> str:
    """Returns what the contrasts say in one sentence: those of the first arm, or a count over many pairs.

    Example: `finding(suite, contrasts_of(suite))`
    """
    known = {key: one for key, one in contrasts.items() if math.isfinite(one.difference)}
    if not known:
        return "No contrast can be computed yet."
    arm, _, method, shots = next(iter(known))
    own = {key[1]: one for key, one in known.items() if (key[0], *key[2:]) == (arm, method, shots)}
    if len(own) < 2 and len(known) > NAMED:
        return _counted(suite, known)
    tuned = short_titles(suite.results).get(method, method)
    where = f"{suite.kind.metric.label}, {tuned}" + (f", K = {shots}" if len(suite.results.shots) > 1 else "")
    parts = [_part(suite, (arm, subtracted, method, shots), one) for subtracted, one in own.items()]
    return f"{where}: {suite.title(arm)} {'; '.join(parts)}."


def _part(suite: Suite, key: ContrastKey, contrast: Contrast) -> str:
    """Writes one contrast of the sentence's arm."""
    arm, subtracted, method, shots = key
    title, corrected = suite.title(subtracted), limits(contrast.corrected, sign=True)
    if suite.silent(arm, subtracted, method=method, shots=shots):
        return f"and {title} predicted nothing"
    if not corrected or contrast.corrected.wider_than(suite.scale):
        return f"has too few seeds for a comparison with {title}"
    if contrast.bold:
        return f"{signed(contrast.difference)} {corrected} over {title}"
    return f"not told apart from {title} ({signed(contrast.difference)} {corrected})"


def _counted(suite: Suite, known: Mapping[ContrastKey, Contrast]) -> str:
    """Writes how many of many pairs differ."""
    bold = {key: one for key, one in known.items() if one.bold}
    few = [one for one in known.values() if one.corrected.wider_than(suite.scale) or math.isnan(one.corrected.low)]
    named = [
        f"{subtraction(suite.title(key[0]), suite.title(key[1]))} {signed(one.difference)} {limits(one.corrected, sign=True)}"
        for key, one in list(bold.items())[:NAMED]
    ]
    first = f": {'; '.join(named)}{' and others' if len(bold) > NAMED else ''}" if bold else ""
    rest = len(known) - len(bold) - len(few)
    parts = [f"{len(bold)} are told apart from zero{first}" if bold else "none is told apart from zero"]
    parts += [f"{len(few)} have too few seeds for an interval"] if few else []
    parts += [f"{rest} are not told apart from it"] if rest and bold else []
    return f"Of {len(known)} differences {'; '.join(parts)}."
