"""The Evaluate tab's handlers, called as gradio calls them: a comparison from its start to its report."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from made_report import LABELS, make_report
from promptclf.data.dataset import Dataset
from promptclf.evaluation import charts
from promptclf.evaluation.report import build_report
from promptclf.evaluation.significance import Comparison
from promptclf.jobs.store import Job
from promptclf.modes import MODES
from promptclf.task import Example, Task
from promptclf.ui.page.context import Context
from promptclf.ui.page.panel import OWN
from promptclf.ui.tabs.evaluate import FILES, Evaluation, progress_view, request_of
from promptclf.ui.views.report import DIVIDED_FIRST, report_view, verdict
from promptclf.ui.words import WORDS, Language
from tab_context import NASTY, build, check_html, finish, is_skip, prop
from visitors import Visitor, asking

EN, ZH = asking("en"), asking("zh-CN")
LANGUAGES: tuple[Language, ...] = ("en", "zh")


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROMPTCLF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))


@pytest.fixture
def built(tmp_path: Path) -> tuple[Context, Evaluation]:
    return build(tmp_path, Evaluation)


@pytest.fixture
def context(built: tuple[Context, Evaluation]) -> Context:
    return built[0]


@pytest.fixture
def tab(built: tuple[Context, Evaluation]) -> Evaluation:
    return built[1]


@pytest.fixture
def visitor(context: Context) -> Visitor:
    return Visitor(context.store)


def start(tab: Evaluation, visitor: Visitor, **changes: Any) -> str:
    values = {"task": "support", "modes": list(MODES), "rows": 50, "test_rows": 20, **changes}
    updates = tab.desk.begin(EN, visitor.token, *values.values())
    return str(updates[tab.desk.shown])


# ---- settings ------------------------------------------------------------------------------------


def test_the_data_is_that_of_the_task(tab: Evaluation, visitor: Visitor) -> None:
    line, test_rows, rows, shown = tab.data(EN, visitor.token, "support", "")
    assert "Support" in line
    assert "550 training rows · 120 validation rows · 280 test rows · 10 labels" in line
    assert (prop(test_rows, "value"), prop(rows, "value")) == (280, 550)

    line, test_rows, rows, again = tab.data(ZH, visitor.token, "support", shown)
    assert is_skip(test_rows) and is_skip(rows)  # what the visitor lowered stays
    assert again == shown
    assert "280 行测试" in line

    mine = visitor.upload(name=NASTY)
    line, test_rows, _, _ = tab.data(EN, visitor.token, mine, shown)
    check_html(line)
    assert "&lt;img" in line
    assert prop(test_rows, "value") == 2


@pytest.mark.parametrize("task", [OWN, "0123456789abcdef", None])
def test_labels_without_rows_are_told_where_to_get_some(tab: Evaluation, visitor: Visitor, task: Any) -> None:
    line, test_rows, rows, shown = tab.data(EN, visitor.token, task, "before")
    assert "come without rows" in line
    assert prop(test_rows, "interactive") is False and prop(rows, "interactive") is False
    assert shown == ""


def test_others_data_is_not_shown(tab: Evaluation, context: Context, visitor: Visitor) -> None:
    theirs = Visitor(context.store).upload(name="secret")
    line, *_ = tab.data(EN, visitor.token, theirs, "")
    assert "secret" not in line
    updates = tab.desk.begin(EN, visitor.token, theirs, list(MODES), 50, 20)
    assert "no data set" in updates[tab.desk.problem]
    assert context.store.unfinished() == []


def test_the_request(tab: Evaluation, context: Context, visitor: Visitor) -> None:
    assert request_of("support", ["lora", "zero-shot"], 50.0, None) == {
        "task": "support",
        "modes": ["zero-shot", "lora"],
        "rows": 50,
        "test_rows": None,
    }
    job = context.store.job(start(tab, visitor))
    assert job is not None
    assert (job.kind, job.owner, job.state) == ("evaluate", visitor.owner, "queued")
    assert (job.request["test_rows"], job.request["modes"]) == (20, list(MODES))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"modes": []}, "modes: "),
        ({"task": OWN}, "task: "),
        ({"rows": 1}, "rows: "),
        ({"task": NASTY}, "task: "),
    ],
)
def test_a_wrong_setting_is_told(
    tab: Evaluation, context: Context, visitor: Visitor, changes: dict[str, Any], said: str
) -> None:
    values = {"task": "support", "modes": list(MODES), "rows": 50, "test_rows": 20, **changes}
    updates = tab.desk.begin(EN, visitor.token, *values.values())
    check_html(updates[tab.desk.problem])
    assert said in updates[tab.desk.problem]
    assert list(updates) == [tab.desk.problem]  # nothing else moves
    assert context.store.unfinished() == []


# ---- a comparison under way ----------------------------------------------------------------------


def test_nothing_yet(tab: Evaluation, visitor: Visitor) -> None:
    for request, words in ((EN, "No comparison yet"), (ZH, "还没有比较结果")):
        updates = tab.desk.open(request, visitor.token)
        assert words in updates[tab.desk.view]
        assert prop(updates[tab.desk.timer], "active") is False
        assert prop(updates[tab.desk.earlier], "visible") is False
        assert [prop(updates[button], "visible") for button in tab.downloads] == [False] * 3
    assert "No comparison yet" in tab.desk.open(EN, None)[tab.desk.view]  # a page not yet loaded


def test_a_comparison_is_watched(tab: Evaluation, context: Context, visitor: Visitor) -> None:
    desk, store = tab.desk, context.store
    other = store.add_job("evaluate", "somebody", {"task": "support", "modes": []})
    job_id = start(tab, visitor)
    updates = desk.open(EN, visitor.token)
    assert "1 before it" in updates[desk.view]
    assert prop(updates[desk.start], "interactive") is False
    assert prop(updates[desk.stop], "visible") is True
    seen = updates[desk.seen]
    assert is_skip(desk.look(EN, visitor.token, job_id, seen))

    store.start_job(other.id, 1)
    store.end_job(other.id, "done", {})
    updates = desk.look(EN, visitor.token, job_id, seen)
    assert "for its turn" in updates[desk.view]

    store.start_job(job_id, 1)
    for event in (
        {"event": "begin", "rows": {"train": 50}},
        {"event": "start", "name": "TF-IDF + SVM"},
        {"event": "done", "name": "TF-IDF + SVM"},
        {"event": "start", "name": "lora"},
        {"event": "step", "name": "lora", "step": 5, "steps": 20, "seconds": 10.0, "loss": 1.0},
    ):
        store.add_event(job_id, event)
    updates = desk.look(EN, visitor.token, job_id, updates[desk.seen])
    view = updates[desk.view]
    check_html(view)
    assert "1 / 4" in view
    assert "step 5 of 20, about 30 s left" in view
    assert 'aria-valuenow="31"' in view  # one of four runs, and 0.9 · 5/20 of another

    store.add_event(job_id, {"event": "score", "name": "lora", "rows": 20})
    updates = desk.look(EN, visitor.token, job_id, updates[desk.seen])
    assert set(updates) == {desk.view, desk.seen}  # the buttons stay as they are
    assert "answering 20 test rows" in updates[desk.view]
    assert not re.search(r"\{[a-z]", desk.look(ZH, visitor.token, job_id, "")[desk.view])


def test_every_event_of_a_run_has_words(visitor: Visitor, context: Context, tab: Evaluation) -> None:
    job = context.store.job(start(tab, visitor))
    assert job is not None
    for kind in ("start", "fit", "epoch", "score", "time", "done", "kept", "unheard of"):
        for language in LANGUAGES:
            check_html(progress_view(job, NASTY, [{"event": kind, "name": NASTY}], language))


def test_cancel_and_go_on(tab: Evaluation, context: Context, visitor: Visitor) -> None:
    desk = tab.desk
    job_id = start(tab, visitor)
    context.store.start_job(job_id, 1)
    updates = desk.cancel(EN, visitor.token, job_id)
    assert prop(updates[desk.stop], "interactive") is False
    context.store.end_job(job_id, "interrupted")
    updates = desk.look(EN, visitor.token, job_id, updates[desk.seen])
    assert "was cancelled" in updates[desk.view]
    assert prop(updates[desk.start], "interactive") is True
    assert prop(updates[desk.again], "visible") is False

    job_id = start(tab, visitor)
    context.store.start_job(job_id, 1)
    context.store.end_job(job_id, "interrupted")
    updates = desk.look(EN, visitor.token, job_id, "")
    assert "was interrupted" in updates[desk.view]
    assert prop(updates[desk.again], "visible") is True
    updates = desk.resume(EN, visitor.token, job_id)
    assert prop(updates[desk.stop], "visible") is True
    assert context.store.job(job_id).state == "queued"  # type: ignore[union-attr]


def test_a_failure_is_shown(tab: Evaluation, context: Context, visitor: Visitor) -> None:
    job_id = start(tab, visitor)
    context.store.start_job(job_id, 1)
    context.store.end_job(job_id, "failed", error=f"lora: {NASTY}")
    view = tab.desk.open(EN, visitor.token)[tab.desk.view]
    check_html(view)
    assert "lora: &lt;img" in view


def test_a_full_queue_is_told(tab: Evaluation, context: Context, visitor: Visitor) -> None:
    context.jobs.limit = 1
    start(tab, visitor)
    updates = tab.desk.begin(EN, visitor.token, "support", list(MODES), 50, 20)
    assert "queue is full" in updates[tab.desk.problem]


def test_a_stranger_sees_and_does_nothing(tab: Evaluation, context: Context, visitor: Visitor) -> None:
    job_id, stranger = start(tab, visitor), Visitor(context.store)
    desk = tab.desk
    for updates in (
        desk.open(EN, stranger.token),
        desk.choose(EN, stranger.token, job_id),
        desk.look(EN, stranger.token, job_id, ""),
    ):
        assert updates[desk.shown] == ""
        assert "No comparison yet" in updates[desk.view]
    for act in (desk.cancel, desk.resume):
        for token in (stranger.token, None, "x"):
            assert "pc-error" in act(EN, token, job_id)[desk.problem]
    assert context.store.job(job_id).state == "queued"  # type: ignore[union-attr]


# ---- the report ----------------------------------------------------------------------------------


@pytest.fixture
def done(tab: Evaluation, context: Context, visitor: Visitor) -> str:
    report, examples = make_report()
    job_id = start(tab, visitor)
    context.store.start_job(job_id, 1)
    files = {
        "report.json": report.to_json(),
        "report.html": report.to_html(),
        "predictions.csv": report.to_csv(examples),
    }
    finish(context, job_id, {"report": "report.json"}, files)
    return job_id


def test_the_report_is_shown_after_a_reload(
    tab: Evaluation, visitor: Visitor, done: str, context: Context
) -> None:
    updates = tab.desk.open(EN, visitor.token)
    view = updates[tab.desk.view]
    check_html(view)
    assert "Most often right: LoRA, 87.5 %" in view
    assert "Zero-shot: 2 texts were shortened" in view
    assert view.count("<details") == 4 + 1  # the modes, the baseline, and more rows
    assert "Accuracy against cost" in view and "Confusion matrix: LoRA" in view
    assert "Support · 40 test rows · 3 labels" in view
    names = [Path(str(prop(updates[button], "value"))).name for button in tab.downloads]
    assert names == list(FILES)
    served = Path(str(prop(updates[tab.downloads[2]], "value")))
    rows = list(csv.reader(io.StringIO(served.read_text(encoding="utf-8"), newline="")))
    assert len(rows) == 41
    assert served.is_relative_to(tab.downloads[2].GRADIO_CACHE)  # the store itself is not served

    looked = tab.desk.look(EN, visitor.token, done, updates[tab.desk.seen])
    assert prop(looked[tab.desk.timer], "active") is False  # and then it stops looking
    zh = tab.desk.open(ZH, visitor.token)[tab.desk.view]
    check_html(zh)
    assert "准确率最高：LoRA" in zh


def test_earlier_comparisons_can_be_chosen(
    tab: Evaluation, visitor: Visitor, done: str, context: Context
) -> None:
    newer = start(tab, visitor, modes=["zero-shot"])
    context.jobs.cancel(newer, visitor.owner)
    updates = tab.desk.open(EN, visitor.token)
    choices = prop(updates[tab.desk.earlier], "choices")
    assert [value for _, value in choices] == [newer, done]
    assert choices[0][0].endswith("Support · cancelled")
    assert choices[1][0].endswith("Support · Zero-shot, Few-shot, LoRA")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", choices[0][0])
    assert "Most often right" in tab.desk.choose(EN, visitor.token, done)[tab.desk.view]


def test_a_lost_report_is_told(tab: Evaluation, visitor: Visitor, done: str, context: Context) -> None:
    (context.store.job_folder(done) / "report.json").write_text("{", encoding="utf-8")
    (context.store.job_folder(done) / "report.html").unlink()
    updates = tab.desk.open(EN, visitor.token)
    assert "cannot be read" in updates[tab.desk.view]
    assert prop(updates[tab.downloads[0]], "visible") is False


def test_the_rows_that_divide_the_modes() -> None:
    report, examples = make_report()
    rows = list(csv.reader(io.StringIO(report.to_csv(examples), newline="")))
    view = report_view(report, "desk", "en", rows)
    wrong = {n for n in range(40) if (n % 2 == 0, n % 3 == 0, n % 8 == 0) not in ((True,) * 3, (False,) * 3)}
    assert f"{len(wrong)} of 40 test rows." in view
    shown = view[view.index("Where the modes disagree") :]
    assert f"Show {len(wrong) - DIVIDED_FIRST} more" in shown
    assert shown.count("✗") + shown.count("✓") == 3 * len(wrong)
    assert "long long" in view and "long " * 70 not in view  # long texts are cut
    without = report_view(report, "desk", "en")
    assert "Where the modes disagree" not in without  # a report without its predictions


def test_one_mode_alone() -> None:
    report, _ = make_report()
    alone = build_report(
        report.results[2:3], [LABELS[n % 3] for n in range(40)], LABELS, task="desk", resamples=50
    )
    for language in LANGUAGES:
        check_html(report_view(alone, "desk", language, [["text", "label", "lora"], ["a", "good", "good"]]))


def test_modes_that_are_equally_good_are_all_named() -> None:
    report, _ = make_report()
    lora = report.results[2]
    twin = replace(lora, name="twin", mode="zero-shot")
    twin.provenance = {"learned": {"calibration": "none"}, "parameters": {"calibration": "auto"}}
    both = build_report([lora, twin], [LABELS[n % 3] for n in range(40)], LABELS, task="desk", resamples=50)
    view = report_view(both, "desk", "en")
    assert "Equally often right: LoRA, twin, 87.5 %" in view
    assert "twin was not calibrated" in view and "at least 100 rows" in view
    assert "准确率相同：LoRA、twin" in report_view(both, "desk", "zh")
    twin.provenance["parameters"]["calibration"] = "none"  # as it was asked for
    assert "not calibrated" not in report_view(both, "desk", "en")


@pytest.mark.parametrize(
    ("only_a", "only_b", "p", "needed"),
    [(9, 1, 0.001, None), (3, 1, 0.6, 1234), (2, 2, 1.0, None), (0, 0, 1.0, None)],
)
def test_verdicts_are_those_of_the_report(only_a: int, only_b: int, p: float, needed: int | None) -> None:
    found = Comparison("A", "B", 1200, 0.1, (0.02, 0.18), 0.1, (0.0, 0.2), only_a, only_b, p, p, needed)
    assert verdict(found, "en") == found.verdict
    assert not re.search(r"\{[a-z]", verdict(found, "zh"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_pictures_have_words_in_every_language(language: Language) -> None:
    words = {key: WORDS[language][f"evaluate_chart_{key}"] for key in charts.WORDS}
    for key, text in charts.WORDS.items():
        assert set(re.findall(r"\{(\w+)\}", words[key])) == set(re.findall(r"\{(\w+)\}", text)), key
    if language == "en":
        assert words == dict(charts.WORDS)


def test_own_data_through_the_store(tab: Evaluation, context: Context, visitor: Visitor) -> None:
    task = Task("t", ("a", "b"))
    rows = tuple(Example(f"{label} {n}", label) for n in range(5) for label in ("a", "b"))
    stored = context.store.add_dataset(visitor.owner, Dataset(task, rows, (), rows, name="mine"), task)
    updates = tab.desk.begin(EN, visitor.token, stored.id, ["zero-shot"], 4, 4)
    job = context.store.job(updates[tab.desk.shown])
    assert isinstance(job, Job) and job.request["task"] == stored.id
    context.store.delete_dataset(stored.id, visitor.owner)
    assert "deleted data set" in tab.title(job, "en")


def test_the_scatter_for_small_screens_keeps_its_names_inside() -> None:
    points = [charts.Point(f"mode {n}", 10.0**n, 0.5, (0.4, 0.6)) for n in range(4)]
    for width in (300.0, 640.0):
        picture = charts.cost_chart(points, width=width)
        assert f'width="{width + 64:.0f}"' in picture
        names = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*font-size="12"', picture)
        assert len(names) == 4
        assert all(float(x) >= 48 and float(x) + 6 * 6.6 <= 48 + width for x, _ in names)
    # Two at one place: their names stand below each other, and beside the points.
    same = charts.cost_chart([charts.Point(name, 1.0, 0.5, (0.4, 0.6)) for name in ("one", "two")])
    (_, first), (_, second) = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*font-size="12"', same)
    assert float(second) - float(first) >= 14
