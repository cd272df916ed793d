"""Every tab's main path, in a browser and on the embedded model."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Download, Locator, Page, expect

from browser import Visit, visiting
from promptclf.task import Task
from serving import App

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.slow]

PARCEL = "My parcel was due on Monday and there is still no sign of it."
LABELS = Task.load("support").labels


@pytest.fixture
def visit(browser: Browser, app: App) -> Iterator[Visit]:
    """A new visitor."""
    with visiting(browser, app.address, permissions=["clipboard-read", "clipboard-write"]) as visit:
        yield visit.open()


def ask(visit: Visit, text: str) -> Locator:
    """Send a text; returns its card, once it is there."""
    cards = visit.page.locator("#pc-thread article.pc-card:not(.pc-waiting)")
    before = cards.count()
    box = visit.page.locator("#pc-box textarea")
    box.fill(text)
    box.press("Enter")
    expect(cards).to_have_count(before + 1)
    return cards.last


def content(download: Download) -> str:
    """What was downloaded."""
    return Path(download.path()).read_text(encoding="utf-8-sig")


def upload(page: Page, button: Locator, name: str, text: str) -> None:
    """Choose a file by a button."""
    with page.expect_file_chooser() as chosen:
        button.click()
    chosen.value.set_files({"name": name, "mimeType": "text/csv", "buffer": text.encode()})


# ---- Classify ------------------------------------------------------------------------------------


def test_classify_why_copy_and_clear(visit: Visit) -> None:
    page = visit.page
    card = ask(visit, PARCEL)
    expect(card.locator("h3")).to_contain_text("delivery status")
    expect(card.locator(".pc-bars li")).to_have_count(6)
    expect(page.locator("#pc-box textarea")).to_have_value("")
    card.get_by_role("button", name="Why?").click()
    expect(card.locator(".pc-words mark").first).to_be_visible()
    expect(card.locator(".pc-prompt")).to_contain_text(f"Message: {PARCEL}\nIntent:")
    card.get_by_role("button", name="Copy").click()
    expect(card.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert copied[0] == PARCEL
    assert {line.split("\t")[0] for line in copied[1:]} == set(LABELS)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#pc-thread .pc-empty")).to_be_visible()


@pytest.mark.parametrize("mode", ["zero-shot", "few-shot"])
def test_classify_in_the_other_modes(visit: Visit, mode: str) -> None:
    visit.mode(mode)
    card = ask(visit, PARCEL)
    expect(card.locator(".pc-meta")).to_contain_text(mode.capitalize())
    card.get_by_role("button", name="Why?").click()
    if mode == "few-shot":
        expect(card.locator("ol li").first).to_be_visible()
    expect(card.locator(".pc-prompt")).to_contain_text(PARCEL)


def test_one_click_asks_an_example(visit: Visit) -> None:
    chip = visit.page.locator(".pc-chip").nth(1)
    text = chip.inner_text()
    chip.click()
    expect(visit.page.locator(".pc-asked")).to_have_text(text)
    expect(visit.page.locator("#pc-thread .pc-card h3")).to_contain_text("payment problem")


def test_own_labels_are_answered_by_zero_shot(visit: Visit) -> None:
    page = visit.page
    page.locator("#pc-labels textarea").fill("praise\nanger")
    expect(page.locator("#pc-status")).to_contain_text("Not the task's labels any more")
    expect(page.locator('#pc-mode input[value="zero-shot"]')).to_be_checked()
    card = ask(visit, "This is the best teapot that I have ever had.")
    assert set(card.locator(".pc-bars li > span:first-child").all_inner_texts()) == {"praise", "anger"}
    page.get_by_role("button", name="Restore").click()
    expect(page.locator("#pc-labels textarea")).to_have_value("\n".join(LABELS))


def test_feedback_is_saved_and_deleted(visit: Visit) -> None:
    page = visit.page
    card = ask(visit, PARCEL)
    card.get_by_role("button", name="Wrong?").click()
    expect(card).to_contain_text("Stored on this server until you delete it")
    card.get_by_label("What is the right label?").select_option("complaint")
    card.get_by_role("button", name="Save").click()
    expect(card).to_contain_text("Saved: the right label is “complaint”.")
    page.get_by_role("button", name="Your feedback").click()
    kept = page.locator(".pc-list li")
    expect(kept).to_contain_text("answered “delivery status”, right is “complaint”")
    visit.reload()
    page.get_by_role("button", name="Your feedback").click()
    expect(kept).to_have_count(1)
    kept.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Nothing is stored.")).to_be_visible()


def test_a_file_comes_back_with_labels(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("button", name="Many texts from a file").click()
    texts = [PARCEL, "You charged my card twice for one kettle.", "=1+1 The teapot arrived in three pieces."]
    lines = "".join(f'{number},"{text}"\n' for number, text in enumerate(texts))
    upload(page, page.get_by_role("button", name="Choose a file").first, "mails.csv", f"id,text\n{lines}")
    expect(page.get_by_text("mails.csv: 3 texts")).to_be_visible()
    page.get_by_role("button", name="Classify the file").first.click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download result").first.click()
    assert download.value.suggested_filename == "mails-labels.csv"
    rows = list(csv.DictReader(content(download.value).splitlines()))
    assert [row["id"] for row in rows] == ["0", "1", "2"]
    assert [row["label"] for row in rows] == ["delivery status", "payment problem", "damaged item"]
    assert rows[2]["text"].startswith("'=")  # no spreadsheet runs it


# ---- Compare, Prompts ----------------------------------------------------------------------------


def test_compare(visit: Visit) -> None:
    tab = visit.tab("compare")
    tab.get_by_role("textbox").fill(PARCEL)
    tab.get_by_role("button", name="Compare", exact=True).click()
    expect(tab.locator("article.pc-card:not(.pc-waiting) h3")).to_have_count(3)
    expect(tab.locator(".pc-heading")).to_have_text(["Zero-shot", "Few-shot", "LoRA"])
    expect(tab.locator(".pc-sentence")).to_have_text(re.compile("modes|say"))


def test_prompts(visit: Visit) -> None:
    tab = visit.tab("prompts")
    seen = tab.locator(".pc-prompt")
    expect(seen).to_have_text(f"Message: {PARCEL}\nIntent:")
    cue = tab.get_by_label("Cue before the answer")
    cue.fill("What they want:")
    expect(seen).to_have_text(f"Message: {PARCEL}\nWhat they want:")
    tab.get_by_role("button", name="Answer with this prompt").click()
    expect(tab.locator(".pc-card h3")).to_be_visible()
    with visit.page.expect_download() as download:
        tab.get_by_text("Download the template").click()
    assert "cue: 'What they want:'" in content(download.value)
    tab.get_by_label("Text, for every text and example").fill("no place for the text")
    expect(tab.locator(".pc-error")).to_contain_text("{text}")
    visit.choose(tab.locator(".block", has_text="Template").first, "chat · ")
    expect(seen).to_contain_text("<|im_start|>")


# ---- Data, Evaluate ------------------------------------------------------------------------------


def test_data_from_a_file_to_a_comparison(visit: Visit, dogs_and_cats: str) -> None:
    page, tab = visit.page, visit.tab("data")
    upload(page, tab.locator("#pc-data-file button").first, "pets.csv", dogs_and_cats)
    overview = tab.locator("#pc-data-overview")
    expect(overview.get_by_text("Rows whose text stands earlier already: 1.")).to_be_visible()
    expect(tab.get_by_label("Labels, one a line")).to_have_value("cat\ndog")
    expect(overview.locator(".pw-labels-table tbody tr")).to_have_count(3)
    tab.get_by_label("Name of the data set").fill("Cats & <dogs>")
    tab.get_by_role("button", name="Save as my data set").click()
    expect(overview).to_contain_text("“Cats & <dogs>” is saved and chosen as the task.")
    expect(page.locator("#pc-labels textarea")).to_have_value("cat\ndog")

    tab = visit.tab("evaluate")
    expect(tab.locator("#pc-evaluate-data")).to_contain_text("Cats & <dogs>")
    for mode in ("Few-shot", "LoRA"):
        tab.get_by_label(mode, exact=True).uncheck()
    tab.get_by_label("Test rows to score").fill("6")
    tab.get_by_role("button", name="Compare", exact=True).click()
    expect(tab.locator(".pw-runs")).to_be_visible()
    visit.reload()
    visit.tab("evaluate")
    report = tab.locator("#pc-evaluate-view")
    expect(report.locator("h2")).to_contain_text(
        "Equally often right: Zero-shot, TF-IDF + SVM", timeout=240_000
    )
    expect(report.locator("table").first).to_contain_text("TF-IDF + SVM")
    expect(report.get_by_role("img", name="Confusion matrix").first).to_be_attached()
    with page.expect_download() as download:
        tab.get_by_role("button", name="report.json").click()
    assert json.loads(content(download.value))["labels"] == ["cat", "dog"]
    with page.expect_download() as download:
        tab.get_by_role("button", name="predictions.csv").click()
    assert len(content(download.value).splitlines()) == 1 + 6

    tab = visit.tab("data")
    tab.locator("#pc-data-mine label").click()
    expect(overview.locator(".pw-labels-table")).to_be_visible()
    tab.get_by_role("button", name="Delete", exact=True).click()
    tab.get_by_role("button", name="Yes, delete it").click()
    expect(overview).to_contain_text("“Cats & <dogs>” is deleted.")
    expect(page.locator("#pc-task input")).to_have_value("Support")


@pytest.fixture
def dogs_and_cats() -> str:
    """48 rows and one that stands there twice."""
    cats = [f"The cat {what} {where}." for what in ("sleeps", "purrs", "hides") for where in PLACES]
    dogs = [f"A dog {what} {where}." for what in ("barks", "runs", "digs") for where in PLACES]
    rows = [*((text, "cat") for text in cats), *((text, "dog") for text in dogs), (cats[0], "cat")]
    return "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)


PLACES = ("here", "there", "at home", "outside", "in the barn", "by the door", "at night", "all day")
