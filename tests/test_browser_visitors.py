"""Several visitors, and impatient ones, in a browser: on a fake model that answers when the test says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from browser import Visit, visiting
from live import Live
from page_server import page as page_server

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The whole app with a model that waits on "wait now" while the test holds it."""
    with page_server(tmp_path_factory.mktemp("page")) as (running, _):
        yield running


@pytest.fixture
def visit(browser: Browser, server: Live) -> Iterator[Visit]:
    """A new visitor, in zero-shot."""
    with visiting(browser, server.address) as visit:
        visit.open().mode("zero-shot")
        yield visit


def send(page: Page, text: str) -> None:
    """Ask without waiting for the answer."""
    box = page.locator("#pc-box textarea")
    box.fill(text)
    box.press("Enter")


def test_a_text_that_is_sent_twice_is_asked_once(visit: Visit, server: Live) -> None:
    page = visit.page
    with server.waiting():
        page.locator("#pc-box textarea").fill("wait now, my parcel")
        page.locator("#pc-box textarea").press("Enter")
        page.keyboard.press("Enter")
        expect(page.locator(".pc-waiting")).to_have_count(1)
    expect(page.locator("#pc-thread h3")).to_contain_text("delivery status")
    expect(page.locator(".pc-asked")).to_have_count(1)


def test_what_is_typed_while_an_answer_comes_stays(visit: Visit, server: Live) -> None:
    page, box = visit.page, visit.page.locator("#pc-box textarea")
    with server.waiting():
        send(page, "wait now, my parcel")
        expect(page.locator(".pc-waiting")).to_have_count(1)
        box.fill("I was charged twice")
    expect(page.locator("#pc-thread h3")).to_have_count(1)
    expect(box).to_have_value("I was charged twice")
    box.press("Enter")
    expect(page.locator("#pc-thread h3")).to_have_count(2)
    expect(page.locator("#pc-thread h3").last).to_contain_text("payment problem")


def test_stop_ends_the_waiting(visit: Visit, server: Live) -> None:
    page = visit.page
    with server.waiting():
        send(page, "wait now, my parcel")
        expect(page.locator(".pc-waiting")).to_have_count(1)
        page.locator("#pc-box .stop-button").click()
        expect(page.locator("#pc-thread .pc-note")).to_have_text("Stopped.")
        expect(page.locator(".pc-waiting")).to_have_count(0)
    send(page, "broken cup")
    expect(page.locator("#pc-thread h3")).to_have_count(1)
    expect(page.locator("#pc-thread h3")).to_contain_text("damaged item")
    expect(page.locator("#pc-thread .pc-note")).to_have_text("Stopped.")


def test_compare_twice_is_one_comparison(visit: Visit, server: Live) -> None:
    tab = visit.tab("compare")
    button = tab.get_by_role("button", name="Compare", exact=True)
    with server.waiting():
        tab.get_by_role("textbox").fill("wait now, my parcel")
        button.dblclick()
        expect(tab.locator(".pc-waiting").first).to_be_visible()
    expect(tab.locator(".pc-card h3").first).to_contain_text("delivery status")
    expect(tab.locator(".pc-columns")).to_have_count(1)


def test_what_fails_inside_stays_inside(visit: Visit) -> None:
    send(visit.page, "fail now")
    expect(visit.page.locator("#pc-thread .pc-note")).to_contain_text("Something went wrong")
    assert "somebody" not in visit.page.content()


def test_two_at_once_see_nothing_of_each_other(browser: Browser, server: Live) -> None:
    with visiting(browser, server.address) as ann, visiting(browser, server.address) as bob:
        for visit in (ann, bob):
            visit.open().mode("zero-shot")
        with server.waiting():
            send(ann.page, "wait now, the parcel of Ann")
            send(bob.page, "wait now, Bob was charged")
            for visit in (ann, bob):
                expect(visit.page.locator(".pc-waiting")).to_have_count(1)
        expect(ann.page.locator("#pc-thread h3")).to_contain_text("delivery status")
        expect(bob.page.locator("#pc-thread h3")).to_contain_text("payment problem")

        # Ann says what is right, saves rows, and starts a training.
        card = ann.page.locator("#pc-thread .pc-card")
        card.get_by_role("button", name="Wrong?").click()
        card.get_by_role("button", name="Save").click()
        expect(card).to_contain_text("Saved:")
        tab = ann.tab("data")
        with ann.page.expect_file_chooser() as chosen:
            tab.locator("#pc-data-file button").first.click()
        rows = "".join(f"text {number} of Ann,{'yes' if number % 2 else 'no'}\n" for number in range(40))
        chosen.value.set_files({"name": "diary.csv", "mimeType": "text/csv", "buffer": _csv(rows)})
        tab.get_by_role("button", name="Save as my data set").click()
        expect(tab.locator("#pc-data-overview")).to_contain_text("“diary” is saved")
        owner = next(iter(_owners(server)))
        job = server.store.add_job("train", owner, {"task": server.store.datasets(owner)[0].id})
        server.store.end_job(job.id, "failed", error="a mishap of Ann")
        ann.reload()
        ann.tab("train")
        expect(ann.page.locator("#pc-train-view")).to_contain_text("a mishap of Ann")

        # Bob finds nothing of it: not on his page as it is, nor when he comes again.
        for again in (False, True):
            if again:
                bob.reload()
            for name in ("classify", "train", "evaluate", "data"):
                bob.tab(name)
            bob.page.locator("#pc-task input").click()
            expect(bob.page.get_by_role("option")).to_have_count(2)
            bob.page.keyboard.press("Escape")
            bob.tab("classify").get_by_role("button", name="Your feedback").click()
            expect(bob.page.get_by_text("Nothing is stored.")).to_be_visible()
            for word in ("Ann", "diary", "mishap"):
                assert word not in bob.page.content()


def _csv(rows: str) -> bytes:
    return f"text,label\n{rows}".encode()


def _owners(server: Live) -> set[str]:
    return {row[0] for row in server.store._db.rows("SELECT owner FROM datasets")}


def test_the_token_is_kept_by_the_browser_alone(browser: Browser, server: Live, tmp_path: Path) -> None:
    """What the browser keeps is all that makes a visitor: without it, one is somebody else."""
    with visiting(browser, server.address) as ann:
        ann.open().mode("zero-shot")
        send(ann.page, "broken cup")
        card = ann.page.locator("#pc-thread .pc-card")
        card.get_by_role("button", name="Wrong?").click()
        card.get_by_role("button", name="Save").click()
        expect(card).to_contain_text("Saved:")
        kept = ann.page.context.storage_state(path=tmp_path / "profile.json")
        assert "Ann" not in str(kept)
    for profile, count in ((tmp_path / "profile.json", 1), (None, 0)):
        with visiting(browser, server.address, storage_state=profile) as visit:
            visit.open().page.get_by_role("button", name="Your feedback").click()
            expect(visit.page.locator(".pc-list li")).to_have_count(count)
