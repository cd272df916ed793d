"""The app in a real browser: visitors who drive Chromium, and what they can find wrong with a page.

Playwright drives a Chromium that is installed already; none is downloaded. axe-core is read out of its npm
package, which ``make browser-test`` puts beside the Python packages.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

TABS = ("classify", "compare", "evaluate", "train", "data", "prompts")
PATIENCE = 90_000  # ms: what is waited for comes in one or two seconds where nothing else runs
WIDE, PHONE = (1280, 860), (390, 844)
ARGUMENTS = (
    "--no-sandbox",  # in a container, root may have no other
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
# What a page shows and should not: text beyond the window that no scroll reaches, and text that is cut off.
CUT = """() => {
  const width = document.documentElement.clientWidth, found = [];
  const scrolls = (e) => ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
  const words = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  for (const e of document.querySelectorAll("body *")) {
    if (!words(e) && !e.matches("input, textarea, select")) continue;
    if (!e.checkVisibility({ visibilityProperty: true })) continue;
    if (e.closest(".pc-hidden, .pc-live, .sr-only, svg, option, [aria-hidden=true]")) continue;
    const box = e.getBoundingClientRect();
    if (box.width < 2 || box.height < 2) continue;
    let inside = e.parentElement;
    while (inside && !scrolls(inside)) inside = inside.parentElement;
    const name = `${e.tagName.toLowerCase()} "${(e.textContent || e.value).trim().slice(0, 40)}"`;
    if (!inside && (box.right > width + 1 || box.left < -1)) found.push(`${name} leaves the window`);
    const style = getComputedStyle(e);
    const clips = ["hidden", "clip"].includes(style.overflowX) && style.textOverflow !== "ellipsis";
    if (clips && e.scrollWidth > e.clientWidth + 1) found.push(`${name} is cut off`);
  }
  if (document.documentElement.scrollWidth > width) found.push("the page scrolls sideways");
  return found;
}"""
STILL = "*, *::before, *::after { transition: none !important; animation: none !important; }"


def chromium() -> str | None:
    """Where the browser is, or None."""
    named = os.environ.get("CHROMIUM")
    return named or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


def axe_file() -> Path:
    """Where ``make browser-test`` puts axe-core: beside the Python packages."""
    return Path(sys.prefix) / "node_modules/axe-core/axe.min.js"


# ---- the browser ---------------------------------------------------------------------------------


@contextmanager
def started() -> Iterator[Browser]:
    """Chromium, without a window."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A visitor with a browser profile of their own, on one page of the app."""

    page: Page
    address: str
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def open(self) -> Visit:
        """Load the page, and wait until it knows its visitor."""
        self.page.goto(self.address)
        return self.known()

    def reload(self) -> Visit:
        """Load the page anew."""
        self.page.reload()
        return self.known()

    def known(self) -> Visit:
        """Wait for what the server says first: how many labels there are."""
        expect(self.page.locator("#pc-status p")).to_have_count(1)
        return self

    def tab(self, name: str) -> Locator:
        """Go to a tab; returns its content."""
        self.page.locator(f"#pc-tab-{name}-button").click()
        content = self.page.locator(f"#pc-tab-{name}")
        expect(content).to_be_visible()
        return content

    def settings(self) -> None:
        """Open the panel where the window is small."""
        button = self.page.locator("#pc-summary button")
        if button.is_visible() and button.get_attribute("aria-expanded") == "false":
            button.click()

    def mode(self, name: str) -> None:
        """Choose a mode."""
        self.settings()
        self.page.locator(f'#pc-mode input[value="{name}"]').check(force=True)

    def choose(self, dropdown: Locator, option: str) -> None:
        """Choose an option of one of gradio's dropdowns."""
        dropdown.get_by_role("combobox").click()
        self.page.get_by_role("option", name=option).click()

    def faults(self, weights: Collection[str] = ("serious", "critical")) -> list[str]:
        """What axe-core finds of some weights, one line each."""
        self.page.add_style_tag(content=STILL)
        self.page.evaluate(_axe())
        found = self.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
        return [
            f"{v['impact']} {v['id']}: {node['html'][:160]} {node['failureSummary']}"
            for v in found
            if v["impact"] in weights
            for node in v["nodes"]
        ]

    def cut(self) -> list[str]:
        """Text that leaves the window or is cut off."""
        found: list[str] = self.page.evaluate(CUT)
        return found


@contextmanager
def visiting(browser: Browser, address: str, size: tuple[int, int] = WIDE, **options: Any) -> Iterator[Visit]:
    """A visitor of the app; `options` are those of ``Browser.new_context``.

    Asserts at the end that no page asked another machine, and that no script failed.
    """
    width, height = size
    settings = {"locale": "en-US", "reduced_motion": "reduce", **options}
    context: BrowserContext = browser.new_context(viewport={"width": width, "height": height}, **settings)
    context.set_default_timeout(PATIENCE)
    visit = Visit(context.new_page(), address)
    context.on("request", lambda request: _note(visit, request.url))
    context.on("weberror", lambda error: visit.errors.append(str(error.error)))
    try:
        yield visit
    finally:
        context.close()
    assert visit.outside == []
    assert visit.errors == []


def _note(visit: Visit, url: str) -> None:
    visit.asked.append(url)
    if urlsplit(url).scheme not in ("data", "blob") and not url.startswith(visit.address):
        visit.outside.append(url)


@cache
def _axe() -> str:
    return axe_file().read_text(encoding="utf-8")
