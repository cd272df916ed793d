"""Figures of the web app: ``python tests/benchmarks/web.py``; best on a machine that does nothing else.

Prints, as a table of Markdown each: how soon the first page can be used and what it fetches; how long
``/classify`` takes through gradio_client and `promptclf.Client` beside the direct call; what a session, which
every such call is, costs the server; what axe-core finds; how many browser tests there are; and the lines of
every file of promptclf/ui.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the server's too: both sides of a comparison alike
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from browser import TABS, Visit, started, visiting  # noqa: E402
from serving import ROOT, serve  # noqa: E402

TIMES = """() => {
  const all = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return {
    usable: performance.now(), paint: paint ? paint.startTime : NaN,
    requests: all.length, bytes: all.reduce((sum, entry) => sum + entry.transferSize, 0),
  };
}"""


def first_page(browser: Any, address: str, visits: int) -> list[list[str]]:
    """Medians over visits with an empty cache: "usable" is when the server has said what the panel shows."""
    seen = []
    for _ in range(visits):
        with visiting(browser, address) as visit:
            visit.page.goto(address, wait_until="commit")
            visit.known()
            seen.append(visit.page.evaluate(TIMES))

    def middle(key: str) -> float:
        return statistics.median(one[key] for one in seen)

    return [
        ["first paint with content", f"{middle('paint') / 1000:.2f} s"],
        ["usable", f"{middle('usable') / 1000:.2f} s"],
        ["requests", f"{middle('requests'):.0f}"],
        ["transferred", f"{middle('bytes') / 1000:.0f} kB"],
    ]


def classify(address: str, texts: Sequence[str]) -> list[list[str]]:
    """Seconds of ``/classify`` in three ways, in turn on every text, so that a busy moment meets all."""
    from gradio_client import Client as Plain

    from promptclf import Client, load_classifier, load_model

    lora = load_classifier("support", model=load_model(device="cpu"))
    plain = Plain(address, verbose=False, analytics_enabled=False)
    typed = Client(address)
    ways: dict[str, Callable[[str], Any]] = {
        "direct call": lambda text: lora.classify([text]),
        "promptclf.Client": lambda text: typed.classify(text, mode="lora"),
        "gradio_client": lambda text: plain.predict(text=text, mode="lora", api_name="/classify"),
    }
    for call in ways.values():
        call(texts[0])
    took: dict[str, list[float]] = {way: [] for way in ways}
    beyond: dict[str, list[float]] = {way: [] for way in ways}
    for text in texts:
        for way, call in ways.items():
            start = time.perf_counter()
            answer = call(text)
            took[way].append(1000 * (time.perf_counter() - start))
            inside = answer["milliseconds"] if isinstance(answer, dict) else took[way][-1]
            beyond[way].append(took[way][-1] - inside)
    plain.close()
    typed.close()
    direct = statistics.median(took["direct call"])
    return [
        [
            way,
            *(f"{point:.1f}" for point in points(took[way])),
            f"{statistics.median(took[way]) - direct:.1f}",
            *(f"{point:.1f}" for point in points(beyond[way])),
        ]
        for way in ways
    ]


def points(values: Sequence[float]) -> tuple[float, float]:
    """The median and the 95th percentile."""
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return statistics.median(values), cuts[18]


def sessions(count: int = 50) -> list[list[str]]:
    """CPU time and memory of a session of the app, and of one as gradio makes it."""
    from gradio.blocks import BlocksConfig
    from gradio.state_holder import SessionState

    from promptclf.ui import build_app

    demo = build_app()
    plain = BlocksConfig(demo)
    vars(plain).update({key: value for key, value in vars(demo.default_config).items() if key != "known"})
    rows = []
    for name, config in (("the app's", demo.default_config), ("gradio's", plain)):
        demo.default_config = config
        SessionState(demo)  # what is done only once
        start = time.process_time()
        for _ in range(count):
            SessionState(demo)
        milliseconds = 1000 * (time.process_time() - start) / count
        tracemalloc.start()
        kept = [SessionState(demo) for _ in range(count)]
        kib = tracemalloc.get_traced_memory()[0] / len(kept) / 1024
        tracemalloc.stop()
        rows.append([name, str(len(demo.blocks)), f"{milliseconds:.2f}", f"{kib:.0f}"])
    return rows


def faults(browser: Any, address: str) -> list[list[str]]:
    """Violations of any weight by axe-core, for every tab, light and dark."""
    rows = []
    for scheme in ("light", "dark"):
        with visiting(browser, address, color_scheme=scheme) as visit:
            visit.open()
            rows.append([scheme, *(str(_faults(visit, tab)) for tab in TABS)])
    return rows


def _faults(visit: Visit, tab: str) -> int:
    visit.tab(tab)
    return len(visit.faults(("minor", "moderate", "serious", "critical")))


def browser_tests() -> int:
    """How many there are."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "browser", "tests"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return len(re.findall(r"::test_", listed))


def lines() -> list[list[str]]:
    """Lines of every file of promptclf/ui that people write, the longest first."""
    folder = ROOT / "promptclf/ui"
    files = [path for path in folder.rglob("*") if path.suffix in (".py", ".css", ".js", ".yaml")]
    counted = [(len(path.read_text(encoding="utf-8").splitlines()), path) for path in files]
    ranked = sorted(counted, key=lambda pair: (-pair[0], pair[1]))
    return [[path.relative_to(folder).as_posix(), str(count)] for count, path in ranked if count > 1]


def show(title: str, heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of Markdown."""
    print(f"\n{title}\n\n| {' | '.join(heading)} |\n|{' --- |' * len(heading)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, default=7, help="of the first page")
    parser.add_argument("--texts", type=int, default=100, help="to classify")
    given = parser.parse_args()
    from promptclf import load_dataset
    from promptclf.lm.embedded import home

    with tempfile.TemporaryDirectory() as folder:
        models = home() / "models"
        models.mkdir(parents=True, exist_ok=True)
        (Path(folder) / "models").symlink_to(models)
        os.environ["PROMPTCLF_HOME"] = folder
        texts = [example.text for example in load_dataset("support").test[: given.texts]]
        with serve(Path(folder)) as (app, *_):
            heading = ["way", "p50 ms", "p95 ms", "more than direct", "beyond the model: p50", "p95"]
            show("/classify, LoRA, one thread", heading, classify(app.address, texts))
            show("A session", ["way", "components", "CPU ms", "KiB"], sessions())
            with started() as browser:
                show("First page", ["what", "median"], first_page(browser, app.address, given.visits))
                show("Violations by axe-core", ["theme", *TABS], faults(browser, app.address))
    print(f"\nBrowser tests: {browser_tests()}; load of the machine: {os.getloadavg()[0]:.1f}")
    show("Lines of promptclf/ui", ["file", "lines"], lines())


if __name__ == "__main__":
    main()
