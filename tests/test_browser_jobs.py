"""Long work in a browser: a double click starts one job, a reload shows it again, and it can be cancelled."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from browser import Visit, visiting
from live import until
from made_report import make_report
from promptclf.jobs.store import Job
from promptclf.modes import MODES
from promptclf.task import PACKAGED_TASKS
from serving import App

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.slow]

ADAPTER = PACKAGED_TASKS / "support/adapter"


@pytest.fixture
def visit(browser: Browser, app: App) -> Iterator[Visit]:
    """A new visitor, who leaves no job behind."""
    with visiting(browser, app.address) as visit:
        yield visit.open()
    for job in app.store.unfinished():
        app.store.cancel_job(job.id)
    until(lambda: not app.store.unfinished(), seconds=60)


def finished(app: App, owner: str) -> Job:
    """A training as it stands after its worker has ended well: here with the packaged adapter."""
    job = app.store.add_job("train", owner, {"task": "support", "rows": None, "epochs": 3})
    app.store.start_job(job.id, 1)
    saved = json.loads((ADAPTER / "promptclf.json").read_text(encoding="utf-8"))
    training = saved["learned"]["training"]
    for number in range(1, 208):
        loss = 2.5 * 0.99**number
        app.store.add_event(job.id, {"event": "step", "step": number, "steps": 207, "loss": loss})
    for epoch in training["history"]:
        app.store.add_event(job.id, {"event": "epoch", "epochs": 3, **epoch})
    shutil.copytree(ADAPTER, app.store.job_folder(job.id) / "adapter")
    model = {"name": "embedded"}
    result = {"training": training, "validation": training["history"][-1], "model": model}
    assert app.store.end_job(job.id, "done", result)
    return job


def compared(app: App, owner: str) -> None:
    """A comparison as it stands after its worker has ended well."""
    report, examples = make_report()
    job = app.store.add_job("evaluate", owner, {"task": "support", "modes": list(MODES)})
    app.store.start_job(job.id, 1)
    report.save(app.store.job_folder(job.id), examples)
    assert app.store.end_job(job.id, "done", {"report": "report.json"})


def test_a_training_survives_a_reload_and_is_cancelled(visit: Visit, app: App) -> None:
    page, tab = visit.page, visit.tab("train")
    expect(tab.locator("#pc-train-data")).to_contain_text("550 training rows")
    tab.get_by_label("Labelled rows to learn from").fill("40")
    expect(tab.locator("#pc-train-plan")).to_contain_text("40 training rows in batches of 8")
    tab.get_by_role("button", name="Start training").dblclick()
    busy = tab.get_by_role("button", name="Training…")
    expect(busy).to_be_disabled()
    (job,) = app.store.unfinished()  # one, though the button was clicked twice
    assert job.request["rows"] == 40

    step = tab.locator(".pw-strip dt:text-is('Step') + dd")
    expect(step).to_have_text(re.compile(r"^[1-9]\d* / \d+"))
    visit.reload()
    visit.tab("train")
    expect(step).to_have_text(re.compile(r"^[1-9]\d* / \d+"))
    expect(busy).to_be_disabled()
    assert [other.id for other in app.store.unfinished()] == [job.id]
    assert visit.faults() == []

    tab.get_by_role("button", name="Cancel", exact=True).click()
    expect(tab.get_by_text("It was cancelled, and nothing of it is kept.")).to_be_visible()
    expect(tab.get_by_role("button", name="Start training")).to_be_enabled()
    assert page.locator("#pc-train-view svg.chart").count() == 2

    # What a training that ends well shows, and that its adapter answers then.
    done = finished(app, job.owner)
    visit.reload()
    visit.tab("train")
    expect(tab.locator(".pc-card h2")).to_have_text("Macro-F1 77.9 %, accuracy 77.5 %")
    expect(tab.locator(".pw-list label")).to_have_count(2)
    assert visit.faults() == []
    tab.get_by_role("button", name="Use this adapter").click()
    expect(tab.get_by_text("This adapter answers now in Classify and Compare")).to_be_visible()
    expect(page.locator("#pc-adapter input")).to_have_value(re.compile("Your training of"))
    visit.tab("classify")
    page.locator("#pc-box textarea").press("Enter")
    expect(page.locator("#pc-thread .pc-card h3")).to_contain_text("delivery status")
    assert app.store.job(done.id) is not None


def test_a_comparison_starts_once_and_is_cancelled(visit: Visit, app: App) -> None:
    tab = visit.tab("evaluate")
    expect(tab.locator("#pc-evaluate-data")).to_contain_text("280 test rows")
    tab.get_by_role("button", name="Compare", exact=True).dblclick()
    expect(tab.get_by_role("button", name="Comparing…")).to_be_disabled()
    (job,) = app.store.unfinished()
    assert job.request["modes"] == ["zero-shot", "few-shot", "lora"]
    tab.get_by_role("button", name="Cancel", exact=True).click()
    expect(tab.get_by_text("It was cancelled, and nothing of it is kept.")).to_be_visible()
    assert app.store.unfinished() == []

    # What a comparison that ends well shows.
    compared(app, job.owner)
    visit.reload()
    visit.tab("evaluate")
    expect(tab.locator("#pc-evaluate-view h2")).to_have_text(re.compile(r"Most often right: LoRA, 87\.5 %"))
    for details in tab.locator("#pc-evaluate-view summary").all():
        if details.locator("xpath=..").get_attribute("open") is None:
            details.click()
    expect(tab.get_by_text("Confusion matrix").last).to_be_visible()
    assert visit.faults() == []
    assert visit.cut() == []


def test_without_a_mode_nothing_starts(visit: Visit, app: App) -> None:
    tab = visit.tab("evaluate")
    for mode in ("Zero-shot", "Few-shot", "LoRA"):
        tab.get_by_label(mode, exact=True).uncheck()
    tab.get_by_role("button", name="Compare", exact=True).click()
    expect(tab.locator(".pc-error")).to_have_text("modes: expected at least one, got none; choose a mode")
    assert app.store.unfinished() == []
