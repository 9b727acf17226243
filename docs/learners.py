"""python docs/learners.py

Writes the table and the sections of docs/learners.md between its two markers, out of metaprime/meta/learners.py.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from metaprime.meta import LEARNERS, Learner
from metaprime.meta import learners as module
from metaprime.reports.wording import markdown

PAGE = Path(__file__).parent / "learners.md"
BEGIN, END = "<!-- written by docs/learners.py -->\n", "<!-- /written by docs/learners.py -->"


def filled(page: str) -> str:
    """Returns the page with what stands between its markers written anew."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{generated()}\n{END}{rest.split(END)[1]}"


def generated() -> str:
    """Returns the table of learners and a section for each."""
    header = ("learner", "inner loop moves", "outer step moves", "simulates", "orders")
    table = markdown(header, [_row(*item) for item in LEARNERS.items()]).replace("---:", "---")
    return "\n".join([table, *_sections()])


def _row(name: str, learner: Learner) -> list[str]:
    orders = ("first, second" if learner.second_order else "first") if learner.adapts else "-"
    simulated = {"full": "full fine-tuning", "head": "head tuning", "peft": "the method of `peft`", None: "-"}[
        learner.simulates
    ]
    return [f"[`{name}`](#{name})", _listed(learner.inner), _listed(learner.outer), simulated, orders]


def _sections() -> Iterator[str]:
    documented = docstrings()
    for name, learner in LEARNERS.items():
        words = textwrap.fill(_in_words(learner), 100)
        yield f"### {name}\n\n{documented[name]}\n\n    {learner.formula}\n\n{words}\n"


def _in_words(learner: Learner) -> str:
    """Returns the equation as sentences; nothing for a meta-step of another file, which may be none of those below."""
    if inspect.getmodule(learner.step) is not module:
        return ""
    moved = _listed(learner.outer)
    if not learner.reads_labels:
        return f"In words: each step moves the {moved} down the loss on masked words of all sentences of the meta-step."
    if not learner.adapts:
        return (
            f"In words: each step moves the {moved} down the loss on all sentences of the meta-step, support and query."
        )
    if learner.adapts_on_query:
        return (
            f"In words: for each episode, the inner loop moves the {_listed(learner.inner)} n steps down the support loss and "
            f"one down the query loss; the outer step moves the {moved} towards the mean of where the episodes ended."
        )
    return (
        f"In words: for each episode, the inner loop moves the {_listed(learner.inner)} n steps down the support loss; the "
        f"outer step moves the {moved} down the mean query loss at the values reached."
    )


def _listed(groups: Sequence[str]) -> str:
    """Returns `backbone, adapter and head` for these three."""
    *first, last = groups or ("-",)
    return f"{', '.join(first)} and {last}" if first else last


def docstrings() -> dict[str, str]:
    """Returns the docstring below each learner in the source: meta/learners.py, or the file of its meta-step."""
    files = {inspect.getsourcefile(one) for one in (module, *(learner.step for learner in LEARNERS.values()))}
    bodies = [ast.parse(Path(str(file)).read_text(encoding="utf-8")).body for file in sorted(map(str, files))]
    found = {}
    for value, text in itertools.chain.from_iterable(map(itertools.pairwise, bodies)):
        if isinstance(value, ast.Assign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            name = value.targets[0]
            assert isinstance(name, ast.Name)
            found[name.id] = str(text.value.value)
    return found


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
