"""python docs/pipeline.py > docs/pipeline.svg

Draws the pipeline: corpora, episodes, priming with its two loops, the frozen encoder, transfer, scores.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 960, 300
LINE = 17
"""Pixels from one line of text to the next."""

INK, QUIET, PLAIN, STRONG = "#1f2933", "#52606d", "#f5f7fa", "#e3effa"

TITLE = "The pipeline of metaprime"
DESCRIPTION = (
    "Corpora in many languages give episodes. Priming has two loops: the inner loop moves adapter and head on the support "
    "sentences of an episode, the outer loop moves the backbone by the loss on its query sentences. The primed encoder is "
    "frozen. Transfer fine-tunes a new adapter and head on K examples of a new language. Its scores go into a report."
)


@dataclass(frozen=True)
class Box:
    """A rectangle with a heading and lines of text; all measures are pixels."""

    x: int
    y: int
    width: int
    height: int
    heading: str
    lines: Sequence[str]
    fill: str = PLAIN

    @property
    def left(self) -> tuple[int, int]:
        """Where an arrow ends."""
        return self.x, self.y + self.height // 2

    @property
    def right(self) -> tuple[int, int]:
        """Where an arrow begins."""
        return self.x + self.width, self.y + self.height // 2


CORPORA = Box(8, 105, 124, 90, "Corpora", ("labelled text", "in many", "languages"))
EPISODES = Box(152, 105, 124, 90, "Episodes", ("support and", "query sentences", "of one language"))
PRIMING = Box(296, 20, 220, 260, "Priming", ())
INNER = Box(312, 54, 188, 86, "Inner loop", ("moves adapter + head,", "n steps on support"), STRONG)
OUTER = Box(312, 178, 188, 86, "Outer loop", ("moves the backbone", "by the query loss"), STRONG)
PRIMED = Box(536, 105, 138, 90, "Primed encoder", ("plain Hugging Face", "model, frozen", "from here on"), STRONG)
TRANSFER = Box(694, 105, 130, 90, "Transfer", ("fine-tunes a new", "adapter + head", "on K examples"))
SCORES = Box(844, 105, 108, 90, "Scores", ("intervals,", "tables and", "a report"))
TARGET = Box(694, 20, 130, 54, "New language", ("K examples",), "#ffffff")


def drawing() -> str:
    """Returns the whole picture as SVG."""
    row = (CORPORA, EPISODES, PRIMING, PRIMED, TRANSFER, SCORES)
    arrows = [_arrow(one.right, other.left) for one, other in itertools.pairwise(row)]
    arrows += [
        _arrow((396, INNER.y + INNER.height), (396, OUTER.y), "adapted values", side=1),
        _arrow((382, OUTER.y), (382, INNER.y + INNER.height), "backbone", side=-1),
        _arrow((759, TARGET.y + TARGET.height), (759, TRANSFER.y)),
    ]
    boxes = [line for box in (*row, INNER, OUTER, TARGET) for line in _box(box)]
    return "\n".join([*_opening(), *boxes, *arrows, "</svg>\n"])


def _opening() -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" aria-labelledby="title desc" font-family="Helvetica, Arial, sans-serif" font-size="13">'
    )
    yield f'<title id="title">{escape(TITLE)}</title>'
    yield f'<desc id="desc">{escape(DESCRIPTION)}</desc>'
    yield (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{QUIET}"/></marker></defs>'
    )
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'


def _box(box: Box) -> Iterator[str]:
    """Yields the rectangle, its heading and its lines; a box without lines has its heading at the top."""
    yield (
        f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="8" fill="{box.fill}" '
        f'stroke="{QUIET}" stroke-width="1.2"/>'
    )
    middle = box.x + box.width // 2
    top = box.y + (box.height - LINE * len(box.lines)) // 2 + 4 if box.lines else box.y + 24
    yield _text(middle, top, box.heading, INK, bold=True)
    for number, line in enumerate(box.lines, 1):
        yield _text(middle, top + LINE * number, line, INK)


def _arrow(start: tuple[int, int], end: tuple[int, int], label: str = "", side: int = 0) -> str:
    """Returns an arrow; a vertical one may have a label to its right (side 1) or left (side -1)."""
    line = (
        f'<line x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}" stroke="{QUIET}" stroke-width="1.6" '
        'marker-end="url(#head)"/>'
    )
    if not label:
        return line
    x, y = start[0] + 8 * side, (start[1] + end[1]) // 2 + 4
    return f"{line}\n{_text(x, y, label, QUIET, anchor='start' if side > 0 else 'end', size=12)}"


def _text(x: int, y: int, text: str, colour: str, bold: bool = False, anchor: str = "middle", size: int = 13) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}" font-size="{size}"{weight}>{escape(text)}</text>'
    )


if __name__ == "__main__":
    sys.stdout.write(drawing())
