"""Pictures of every tab with something in it, light, dark and on a phone: ``python tests/screenshots.py``.

It starts the app, trains an adapter and compares the modes as a visitor would, which takes some minutes, and
writes spaces/screenshots. With ``--home DIR`` both are kept there, and another call goes on from them;
``--as-it-is`` takes pictures of what is there without waiting for either to end.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, expect

from browser import PHONE, TABS, Visit, started, visiting
from serving import ROOT, serve

FOLDER = ROOT / "spaces/screenshots"
LOOKS = {"light": ((1200, 800), "light"), "dark": ((1200, 800), "dark"), "phone": (PHONE, "light")}
TALLEST = {"light": 1500, "dark": 1500, "phone": 2000}  # pixels of the page; what is below is left out
COLOURS = 96
HOURS = 3_600_000  # ms
ROWS, TEST_ROWS = 150, 120
ASKED = (
    "Could you send the invoice for order 4471 to my office as well?",
    "My parcel was due on Monday and there is still no sign of it.",
)
CSV = "text,label\n" + "".join(
    f'"{text}",{label}\n'
    for text, label in (
        ("The blue kettle leaks since yesterday.", "damaged item"),
        ("The blue kettle leaks since yesterday!", "damaged item"),
        ("The blue kettle leaks since yesterday.", "refund"),
        *((f"Where is order {n}? It should have come on the {n % 28 + 1}th.", "delivery") for n in range(60)),
        *((f"Please take back the shirt of order {n}, size {n % 12}.", "refund") for n in range(60)),
        *((f"The lamp of order {n} arrived with {n % 5 + 1} cracks.", "damaged item") for n in range(60)),
        *((f"I cannot log in with address {n}.", "account") for n in range(7)),
    )
)


def work(visit: Visit) -> None:
    """Train and compare, unless the visitor has done so before."""
    for name, start in (("train", "Start training"), ("evaluate", "Compare")):
        tab = visit.tab(name)
        result = tab.locator(f"#pc-{name}-view h2")
        expect(tab.locator(f"#pc-{name}-data")).to_contain_text("280 test rows")
        if result.count() == 0:
            label = "Labelled rows to learn from" if name == "train" else "Rows to learn from"
            tab.get_by_label(label).fill(str(ROWS))
            if name == "evaluate":
                tab.get_by_label("Test rows to score").fill(str(TEST_ROWS))
            tab.get_by_role("button", name=start, exact=True).click()
            expect(result).to_be_visible(timeout=HOURS)


def classify(visit: Visit) -> None:
    """Two answers, and the reasons of the newer one."""
    page, box = visit.page, visit.tab("classify").locator("#pc-box textarea")
    for number, text in enumerate(ASKED, 1):
        box.fill(text)
        box.press("Enter")
        expect(page.locator("#pc-thread .pc-card h3")).to_have_count(number)
    page.get_by_role("button", name="Why?").last.click()
    expect(page.locator(".pc-words")).to_be_visible()


def compare(visit: Visit) -> None:
    """A finished comparison."""
    tab = visit.tab("compare")
    tab.get_by_role("textbox").first.fill("You charged me for two kettles, and the one that came is dented.")
    tab.get_by_role("button", name="Compare", exact=True).click()
    expect(tab.locator(".pc-card h3")).to_have_count(3)


def evaluate(visit: Visit) -> None:
    """The newest report."""
    expect(visit.tab("evaluate").locator("#pc-evaluate-view h2")).to_contain_text("Most often right")


def train(visit: Visit) -> None:
    """The newest training."""
    expect(visit.tab("train").locator("#pc-train-view svg.chart")).to_have_count(2)


def data(visit: Visit) -> None:
    """A file with some faults."""
    tab = visit.tab("data")
    with visit.page.expect_file_chooser() as chosen:
        tab.locator("#pc-data-file button").first.click()
    chosen.value.set_files({"name": "shop mails.csv", "mimeType": "text/csv", "buffer": CSV.encode()})
    expect(tab.locator(".pw-findings")).to_be_visible()


def prompts(visit: Visit) -> None:
    """A template and what the model sees, with the answer that it gives."""
    tab = visit.tab("prompts")
    visit.mode("few-shot")
    expect(tab.locator(".pc-prompt")).to_contain_text("Intent:")
    tab.get_by_role("button", name="Answer with this prompt").click()
    expect(tab.locator(".pc-card h3")).to_be_visible()


SCENES: dict[str, Callable[[Visit], None]] = {
    "classify": classify,
    "compare": compare,
    "evaluate": evaluate,
    "train": train,
    "data": data,
    "prompts": prompts,
}


def shoot(browser: Browser, address: str, home: Path, tabs: Sequence[str], *, finish: bool) -> None:
    """Take the pictures of some tabs; with `finish`, first do what they are to show."""
    kept = home / "profile.json"
    with visiting(browser, address, storage_state=known(kept, address)) as visit:
        visit.open().page.context.storage_state(path=kept)
        if finish:
            work(visit)
    for look, (size, scheme) in LOOKS.items():
        options = {"color_scheme": scheme, "device_scale_factor": 2 if look == "phone" else 1}
        with visiting(browser, address, size, storage_state=known(kept, address), **options) as visit:
            visit.open()
            for name in tabs:
                SCENES[name](visit)
                close(visit)
                save(visit, FOLDER / f"{name}-{look}.png", size, TALLEST[look])


def known(kept: Path, address: str) -> Any:
    """What the browser kept of an earlier call, whose server had another address; None: nothing."""
    if not kept.is_file():
        return None
    state = json.loads(kept.read_text(encoding="utf-8"))
    return {**state, "origins": [{**origin, "origin": address} for origin in state["origins"]]}


def close(visit: Visit) -> None:
    """No focus, no hints under the mouse, and the panel of a small screen closed again."""
    button = visit.page.locator("#pc-summary button")
    if button.is_visible() and button.get_attribute("aria-expanded") == "true":
        button.click()
    visit.page.mouse.move(0, 0)
    visit.page.evaluate("document.activeElement?.blur(); window.scrollTo(0, 0)")


def save(visit: Visit, path: Path, size: tuple[int, int], tallest: int) -> None:
    """The whole page, down to `tallest` pixels, in few colours."""
    width, least = size
    visit.page.set_viewport_size({"width": width, "height": least})
    height = min(tallest, visit.page.evaluate("document.documentElement.scrollHeight"))
    visit.page.set_viewport_size({"width": width, "height": max(height, least)})
    with Image.open(io.BytesIO(visit.page.screenshot())) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB", flush=True)


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, help="where the training and the comparison are kept")
    parser.add_argument("--tabs", nargs="+", choices=TABS, default=TABS)
    parser.add_argument("--as-it-is", action="store_true", help="wait for no job")
    given = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        home = (given.home or Path(folder)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        with serve(home) as (app, *_), started() as browser:
            shoot(browser, app.address, home, given.tabs, finish=not given.as_it_is)


if __name__ == "__main__":
    main()
