"""How the app looks and is used: no serious fault by axe-core, nothing cut off, by keyboard, in Chinese."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from browser import PHONE, TABS, WIDE, Visit, visiting
from promptclf.ui.words import WORDS
from serving import App

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.slow]

# What moves after it was there, as browsers measure it ("cumulative layout shift"): below 0.1 is good.
SHIFTS = """() => new Promise((done) => new PerformanceObserver((list) => done(
  list.getEntries().filter((e) => !e.hadRecentInput).reduce((sum, e) => sum + e.value, 0)
)).observe({ type: "layout-shift", buffered: true }))"""
WATCH = """() => {
  window.shifted = 0;
  new PerformanceObserver((list) => list.getEntries().forEach((e) => (window.shifted += e.value)))
    .observe({ type: "layout-shift" });
}"""
FOCUS = """() => {
  const e = document.activeElement;
  const style = (x) => getComputedStyle(x);
  const ring = (x) => x && style(x).outlineStyle !== "none" && parseFloat(style(x).outlineWidth) > 0;
  const label = e.labels?.[0];
  const box = e.getBoundingClientRect();
  return {
    name: (e.getAttribute("aria-label") || label?.textContent || e.textContent || e.id).trim().slice(0, 60),
    id: e.id, tag: e.tagName.toLowerCase(), tab: e.closest("[role=tabpanel]")?.id ?? "",
    seen: ring(e) || ring(label) || ring(e.parentElement),
    inside: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
  };
}"""

LOOKS = {
    "light": (WIDE, "light", "en-US"),
    "dark": (WIDE, "dark", "en-US"),
    "phone-chinese": (PHONE, "light", "zh-CN"),
    "phone-dark": (PHONE, "dark", "en-US"),
}


def fill(visit: Visit) -> None:
    """Something in every tab that has something to show at once."""
    page = visit.page
    page.locator("#pc-box textarea").press("Enter")
    card = page.locator("#pc-thread .pc-card")
    card.get_by_role("button", name=re.compile("Why|为什么")).click()
    expect(card.locator(".pc-words")).to_be_visible()
    visit.tab("compare").locator("button.primary").first.click()
    expect(page.locator("#pc-sides .pc-card h3")).to_have_count(3)
    tab = visit.tab("data")
    with page.expect_file_chooser() as chosen:
        tab.locator("#pc-data-file button").first.click()
    rows = "".join(
        f"Is my parcel number {n} lost?,delivery\nPlease refund order {n % 9}.,refund\n" for n in range(30)
    )
    chosen.value.set_files(
        {"name": "mine.csv", "mimeType": "text/csv", "buffer": f"text,label\n{rows}".encode()}
    )
    expect(page.locator("#pc-data-overview .pw-findings")).to_be_visible()
    visit.tab("prompts").locator("button.secondary").first.click()
    expect(page.locator("#pc-tab-prompts .pc-card h3")).to_be_visible()
    visit.tab("classify")


@pytest.fixture(
    scope="module",
    params=[
        (WIDE, "light", "en-US"),
        (WIDE, "dark", "en-US"),
        (PHONE, "light", "zh-CN"),
        (PHONE, "dark", "en-US"),
    ],
    ids=["light", "dark", "phone-chinese", "phone-dark"],
)
def filled(request: pytest.FixtureRequest, browser: Browser, app: App) -> Iterator[Visit]:
    """A page with something in every tab, in one of four looks."""
    size, scheme, language = request.param
    with visiting(browser, app.address, size, color_scheme=scheme, locale=language) as visit:
        fill(visit.open())
        yield visit


@pytest.mark.parametrize("tab", TABS)
def test_no_tab_has_a_serious_fault(filled: Visit, tab: str) -> None:
    filled.tab(tab)
    assert filled.faults() == []


@pytest.mark.parametrize("tab", TABS)
def test_nothing_is_cut_off(filled: Visit, tab: str) -> None:
    filled.tab(tab)
    for name in TABS:
        expect(filled.page.locator(f"#pc-tab-{name}-button")).to_be_in_viewport()
    assert filled.cut() == []


def test_the_look_is_the_one_that_was_asked_for(filled: Visit, request: pytest.FixtureRequest) -> None:
    dark = "dark" in request.node.callspec.id
    shade = filled.page.evaluate("getComputedStyle(document.body).backgroundColor")
    red, green, blue = map(int, re.findall(r"\d+", shade)[:3])
    assert (red + green + blue < 200) is dark


def test_the_panel_opens_on_a_small_screen(browser: Browser, app: App) -> None:
    with visiting(browser, app.address, PHONE) as visit:
        visit.open()
        expect(visit.page.locator("#pc-summary")).to_contain_text("SupportLoRA10 labels")
        expect(visit.page.locator("#pc-settings")).to_be_hidden()
        visit.settings()
        expect(visit.page.locator("#pc-labels textarea")).to_be_visible()
        assert visit.cut() == []
        assert visit.faults() == []


# ---- Chinese -------------------------------------------------------------------------------------


def test_a_chinese_browser_sees_chinese(browser: Browser, app: App) -> None:
    with visiting(browser, app.address, locale="zh-CN") as visit:
        fill(visit.open())
        for tab in TABS:
            visit.tab(tab)
            shown = {line.strip() for line in visit.page.locator("body").inner_text().splitlines()}
            english = {words for key, words in WORDS["en"].items() if words != WORDS["zh"][key]}
            assert not shown & english
            assert WORDS["zh"][f"tab_{tab}"] in shown


# ---- nothing jumps -------------------------------------------------------------------------------


def test_nothing_jumps_while_the_page_loads(browser: Browser, app: App) -> None:
    for size in (WIDE, PHONE):
        with visiting(browser, app.address, size) as visit:
            visit.open()
            assert visit.page.evaluate(SHIFTS) < 0.1


def test_nothing_jumps_when_an_answer_comes(browser: Browser, app: App) -> None:
    with visiting(browser, app.address) as visit:
        page = visit.open().page
        page.locator("#pc-box textarea").press("Enter")
        waiting = page.locator(".pc-waiting, #pc-thread h3").first
        expect(waiting).to_be_visible()
        page.evaluate(WATCH)
        expect(page.locator("#pc-thread h3")).to_have_count(1)
        tab = visit.tab("compare")
        tab.locator("button.primary").first.click()
        expect(page.locator("#pc-sides .pc-columns")).to_be_visible()
        page.evaluate("() => (window.shifted = 0)")
        expect(page.locator("#pc-sides .pc-card h3")).to_have_count(3)
        assert page.evaluate("window.shifted") < 0.1


# ---- by keyboard alone ---------------------------------------------------------------------------


def test_by_keyboard_alone(browser: Browser, app: App) -> None:
    """From the first Tab to an answer, why it was given, and another tab; each stop can be seen."""
    with visiting(browser, app.address) as visit:
        page = visit.open().page
        walk_to(page, "Task")
        walk_to(page, "Labels")
        walk_to(page, "LoRA")  # a group of choices is one stop: the one that is chosen
        page.keyboard.press("ArrowUp")
        expect(page.locator('#pc-mode input[value="few-shot"]')).to_be_checked()
        page.keyboard.press("ArrowDown")
        walk_to(page, "Classify")
        walk_to(page, "Text")
        page.keyboard.press("Enter")
        expect(page.locator("#pc-thread h3")).to_have_count(1)
        walk_to(page, "Why?", back=True)
        page.keyboard.press("Enter")
        expect(page.locator(".pc-words")).to_be_visible()
        assert focus(page)["name"] == "Why?"  # where it was, though the card was drawn anew
        walk_to(page, "Wrong?")
        page.keyboard.press("Enter")
        expect(page.locator(".pc-pick")).to_be_visible()
        walk_to(page, "What is the right label?")
        walk_to(page, "Compare", back=True)  # every tab is a stop of its own
        page.keyboard.press("Enter")
        expect(page.locator("#pc-tab-compare")).to_be_visible()
        walk_to(page, "Compare", tab="pc-tab-compare")
        page.keyboard.press("Enter")
        expect(page.locator("#pc-sides .pc-card h3")).to_have_count(3)


@pytest.mark.parametrize("tab", TABS)
def test_every_stop_of_the_keyboard_can_be_seen(browser: Browser, app: App, tab: str) -> None:
    with visiting(browser, app.address) as visit:
        page = visit.open().page
        visit.tab(tab)
        stops = []
        for _ in range(60):
            page.keyboard.press("Tab")
            stop = focus(page)
            if stop["tag"] == "body" or stop in stops:
                break
            assert stop["seen"] and stop["inside"], stop
            stops.append(stop)
        assert [stop for stop in stops if stop["tab"] == f"pc-tab-{tab}"]


def focus(page: Page) -> dict[str, str]:
    """What has the focus."""
    found: dict[str, str] = page.evaluate(FOCUS)
    return found


def walk_to(page: Page, name: str, *, tab: str | None = None, back: bool = False) -> None:
    """Press Tab until something has the focus; it must be visible there."""
    passed = []
    for _ in range(40):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        stop = focus(page)
        if stop["name"].startswith(name) and (tab is None or stop["tab"] == tab):
            assert stop["seen"], stop
            return
        passed.append(stop["name"])
    raise AssertionError(f"no {name!r} among {passed}")
