"""The report in a real browser, headless Chromium if there is one: nothing on the console, every figure seen, no overflow."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from metaprime.reports.write import report

pytestmark = pytest.mark.slow

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-pipe",
)
PATIENCE = 60.0
"""Seconds for one answer: a browser starts slowly on a busy machine."""


class Browser:
    """Chromium spoken to over two pipes: JSON messages, each ended by a zero byte. `events` keeps what nobody asked for."""

    def __init__(self, writing: int, reading: int) -> None:
        self.writing, self.reading = writing, reading
        self.events: list[dict[str, Any]] = []
        self.buffer = b""
        self.number = 0
        self.session = ""

    def ask(self, method: str, **values: Any) -> dict[str, Any]:
        """The result of one command."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": values}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def wait_for(self, event: str) -> None:
        while not any(one.get("method") == event for one in self.events):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def _next(self) -> dict[str, Any]:
        limit = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.reading], [], [], max(0.0, limit - time.monotonic()))
            assert ready, "the browser does not answer"
            got = os.read(self.reading, 2**16)
            assert got, "the browser is gone"
            self.buffer += got
        text, self.buffer = self.buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        return message


@contextlib.contextmanager
def browser(program: str, profile: Path) -> Iterator[Browser]:
    """A running Chromium with one open page. It takes commands at file descriptor 3 and answers at 4."""
    commands, answers = os.pipe(), os.pipe()
    # Their numbers stay clear of 3 and 4.
    theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (commands[0], answers[1])]
    for fd in (commands[0], answers[1]):
        os.close(fd)
    line = shlex.join(["exec", program, *FLAGS, f"--user-data-dir={profile}", "about:blank"])
    process = subprocess.Popen(
        ["bash", "-c", f"{line} 3<&{theirs[0]} 4>&{theirs[1]}"],
        pass_fds=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for fd in theirs:
        os.close(fd)
    try:
        page = Browser(commands[1], answers[0])
        target = page.ask("Target.createTarget", url="about:blank")["targetId"]
        page.session = page.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        yield page
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(commands[1])
        os.close(answers[0])


def test_the_page_in_a_browser(tmp_path: Path, make_suite: Callable[..., Path]) -> None:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    suite = make_suite(
        tmp_path / "suite",
        shots=(20, 100),
        sentences=20,
        words=("<script>console.error(1)</script>", "Donaudampfschifffahrtsgesellschaftskapitänsmütze" * 2),
        failed=[{"arm": "meta", "seed": 3, "error": "x" * 300}],
    )
    page = report(suite)[0]
    with browser(program, tmp_path / "profile") as chromium:
        for domain in ("Page", "Runtime", "Log"):
            chromium.ask(f"{domain}.enable")
        for width, mobile in ((1280, False), (390, True)):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": mobile}
            chromium.ask("Emulation.setDeviceMetricsOverride", **size)
            chromium.events.clear()
            chromium.ask("Page.navigate", url=page.as_uri())
            chromium.wait_for("Page.loadEventFired")
            check_layout(chromium, width)
            spoken = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
            assert [event for event in chromium.events if event.get("method") in spoken] == []
        papers = {scheme: check_scheme(chromium, scheme) for scheme in ("light", "dark")}
        assert papers["light"] > 0.8 > 0.2 > papers["dark"]


def check_layout(chromium: Browser, width: int) -> None:
    """Every figure is there and inside the page; figures' text is inside its figure and large enough to read."""
    assert chromium.value("innerWidth") == width
    assert chromium.value("document.documentElement.scrollWidth") <= width
    chromium.value("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert chromium.value("document.documentElement.scrollWidth") <= width
    assert chromium.value("document.querySelectorAll('figure').length") == 7
    boxes = chromium.value(BOXES)
    assert len(boxes) == 4 + 2 + 1 + 4 + 2 + 6 + 2
    for box in boxes:
        assert 0 <= box["left"] < box["right"] <= width, box
        assert box["right"] - box["left"] > 250
        assert box["height"] > 80
        assert box["texts"] > 3
        assert box["outside"] == [], box
        # The size is that of the smallest text, in pixels.
        assert box["size"] >= 8.5, box


BOXES = """
[...document.querySelectorAll('figure svg')].map(svg => {
  const box = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll('text')];
  const outside = texts.filter(one => {
    const at = one.getBoundingClientRect();
    return at.left < box.left - 2 || at.right > box.right + 2 || at.top < box.top - 2 || at.bottom > box.bottom + 2;
  });
  return {left: box.left, right: box.right, height: box.height, texts: texts.length,
          outside: outside.map(one => one.textContent),
          size: Math.min(...texts.map(one => parseFloat(getComputedStyle(one).fontSize) * svg.getScreenCTM().a))};
})
"""


def check_scheme(chromium: Browser, scheme: str) -> float:
    """Text, series and soft text stand out against the paper; returns the paper's luminance."""
    chromium.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    colours = chromium.value(COLOURS)
    paper = luminance(colours.pop("paper"))
    for name, colour in colours.items():
        low, high = sorted((paper, luminance(colour)))
        assert (high + 0.05) / (low + 0.05) >= (4.5 if name in ("ink", "soft") else 3.0), (scheme, name)
    return paper


COLOURS = """
Object.fromEntries(['paper', 'ink', 'soft', ...[0, 1, 2, 3, 4, 5, 6, 7].map(n => 'series-' + n)].map(
  name => [name, getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()]))
"""


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb as the accessibility guidelines have it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
