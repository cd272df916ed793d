"""The Train tab's handlers, called as gradio calls them: plan, run, curves, result, earlier runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from promptclf.classifiers.lora import LoraClassifier
from promptclf.data.dataset import Dataset, load_dataset
from promptclf.errors import PromptClfError
from promptclf.evaluation.measure import columns
from promptclf.jobs.store import Job
from promptclf.lm.model import HFModel
from promptclf.schema import TrainRequest
from promptclf.settings import TrainConfig
from promptclf.task import Example
from promptclf.ui.core import pace
from promptclf.ui.core.pace import Pace, Plan, Stopwatch, make_plan, pace_of
from promptclf.ui.page.context import Context
from promptclf.ui.page.panel import OWN
from promptclf.ui.tabs.train import Training, request_of
from promptclf.ui.views.training import curves, plan_card, training_view
from promptclf.ui.words import Language
from quick import TASK, rows
from tab_context import NASTY, build, check_html, finish, is_skip, prop
from visitors import Visitor, asking

EN, ZH = asking("en"), asking("zh-CN")
LANGUAGES: tuple[Language, ...] = ("en", "zh")
SETTINGS: dict[str, Any] = {
    "task": "support",
    "rows": 550,
    "epochs": 3,
    "rate": 0.001,
    "rank": 8,
    "batch": 8,
    "seed": 0,
}
RESULT = {
    "validation": {"epoch": 2, "macro_f1": 0.9234, "accuracy": 0.93, "log_loss": 0.2},
    "training": {
        "rows": 550,
        "validation_rows": 120,
        "steps": 207,
        "best_epoch": 2,
        "minutes": 3.2,
        "history": [{}, {}, {}],
    },
    "model": {"name": "embedded"},
}


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROMPTCLF_HOME", str(tmp_path / "home"))


@pytest.fixture
def built(tmp_path: Path) -> tuple[Context, Training]:
    return build(tmp_path, Training)


@pytest.fixture
def context(built: tuple[Context, Training]) -> Context:
    return built[0]


@pytest.fixture
def tab(built: tuple[Context, Training]) -> Training:
    return built[1]


@pytest.fixture
def visitor(context: Context) -> Visitor:
    return Visitor(context.store)


def start(tab: Training, visitor: Visitor, **changes: Any) -> str:
    updates = tab.desk.begin(EN, visitor.token, *{**SETTINGS, **changes}.values())
    return str(updates[tab.desk.shown])


def step(number: int, of: int = 207, seconds: float | None = None, loss: float = 1.0) -> dict[str, Any]:
    spent = 2.0 * number if seconds is None else seconds
    return {"event": "step", "step": number, "steps": of, "loss": loss, "seconds": spent}


def epoch(number: int, f1: float, of: int = 3) -> dict[str, Any]:
    measured = {"macro_f1": f1, "accuracy": f1, "log_loss": 1.0}
    return {"event": "epoch", "epoch": number, "epochs": of, "seconds": 9.0, **measured}


# ---- before it starts ----------------------------------------------------------------------------


def test_the_plan_is_what_training_does(
    tiny_models: dict[str, HFModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("promptclf.settings.MIN_STEPS", 17)
    monkeypatch.setattr("promptclf.settings.STEPS_PER_LABEL", 1)
    texts, labels = rows(30)
    examples = tuple(Example(text, label) for text, label in zip(texts, labels, strict=True))
    data = Dataset(TASK, examples[:22], examples[22:], (), name="d", validation_from_source=False)
    chosen = make_plan(data, TrainRequest(rows=21, epochs=1, batch_size=4))
    assert chosen == Plan(train=17, validation=4, batch_size=4, epochs=1, steps=5)
    asked = TrainRequest(rows=21, epochs=3, batch_size=4)
    plan = make_plan(data, asked)
    assert plan == Plan(train=17, validation=4, batch_size=4, epochs=4, steps=20)

    small = data.limit(rows=asked.rows, seed=asked.seed)
    config = TrainConfig(batch_size=4, patience=99, rank=2)
    classifier = LoraClassifier(TASK, tiny_models["llama"], config=config)
    training = classifier.fit(*columns(small.train), validation=columns(small.validation)).training_
    assert (training["rows"], training["validation_rows"]) == (plan.train, plan.validation)
    assert training["steps"] == plan.steps


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": 1}, "rows: expected a whole number"),
        ({"rows": 2.5}, "rows: expected a whole number"),
        ({"epochs": 0}, "epochs: expected a whole number from 1"),
        ({"epochs": "many"}, "epochs: expected a whole number from 1"),
        ({"rate": 7.0}, "learning_rate: expected a number above 0"),
        ({"seed": -1}, "seed: expected"),
    ],
)
def test_a_number_out_of_range_is_told(
    tab: Training, visitor: Visitor, changes: dict[str, Any], said: str
) -> None:
    card, _ = tab.plan(EN, visitor.token, *(SETTINGS | changes).values())
    assert said in card and 'role="alert"' in card
    assert said in tab.desk.begin(EN, visitor.token, *(SETTINGS | changes).values())[tab.desk.problem]


def test_the_plan_of_the_task_is_shown(tab: Training, visitor: Visitor) -> None:
    card, button = tab.plan(EN, visitor.token, *SETTINGS.values())
    check_html(card)
    assert "550 training rows in batches of 8, 3 epochs: 207 steps. 120 validation rows." in card
    assert "has not been measured" in card
    assert prop(button, "visible") is True

    card, _ = tab.plan(EN, visitor.token, *{**SETTINGS, "rows": 40}.values())
    assert "So few rows need more than 3 epochs to learn from; it will be 30." in card
    for language in LANGUAGES:
        check_html(plan_card(Plan(40, 10, 8, 30, 150), 3, Pace(0.5, 0.1, timed=True), language))


def test_the_boxes_follow_the_task(tab: Training, visitor: Visitor) -> None:
    line, box, shown = tab.data(EN, visitor.token, "support", "")
    assert "Support" in line and prop(box, "value") == 550
    assert is_skip(tab.data(EN, visitor.token, "support", shown)[1])
    mine = visitor.upload(name=NASTY)
    line, box, _ = tab.data(EN, visitor.token, mine, shown)
    check_html(line)
    assert prop(box, "value") == 2
    line, box, _ = tab.data(EN, visitor.token, OWN, shown)
    assert "come without rows" in line and prop(box, "interactive") is False
    assert tab.plan(EN, visitor.token, *{**SETTINGS, "task": OWN}.values())[0] == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": 1}, "rows: "),
        ({"rate": 0.5}, "learning_rate: "),
        ({"rank": 1000}, "rank: "),
        ({"seed": -1}, "seed: "),
    ],
)
def test_a_wrong_setting_is_told_before_and_at_the_start(
    tab: Training, context: Context, visitor: Visitor, changes: dict[str, Any], said: str
) -> None:
    values = {**SETTINGS, **changes}.values()
    card, button = tab.plan(EN, visitor.token, *values)
    assert said in card and prop(button, "visible") is False
    assert said in tab.desk.begin(EN, visitor.token, *values)[tab.desk.problem]
    assert context.store.unfinished() == []


def test_the_time_by_the_last_run_on_these_rows(tab: Training, context: Context, visitor: Visitor) -> None:
    start(tab, visitor)
    newest = start(tab, visitor)
    context.store.add_event(newest, step(50, seconds=100.0))
    card, button = tab.plan(EN, visitor.token, *SETTINGS.values())
    assert "About 7 min on this machine, by the speed of your last training" in card  # 207 steps of 2 s
    assert "(2 s a step)" in card
    assert prop(button, "visible") is False
    # A larger batch takes as much longer; other people's runs and other rows tell nothing.
    card, _ = tab.plan(EN, visitor.token, *{**SETTINGS, "batch": 16}.values())
    assert "(4 s a step)" in card
    stranger = Visitor(context.store)
    assert "has not been measured" in tab.plan(EN, stranger.token, *SETTINGS.values())[0]
    mine = {**SETTINGS, "task": visitor.upload(), "rows": 4}
    assert "has not been measured" in tab.plan(EN, visitor.token, *mine.values())[0]


def test_the_time_by_timed_steps(
    tab: Training, context: Context, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Dataset] = []

    def run(self: Stopwatch, data: Dataset, request: TrainRequest) -> Pace:
        asked.append(data)
        return Pace(0.25, 0.5, timed=True)

    monkeypatch.setattr(Stopwatch, "_run", run)
    waiting, (card, button) = tab.measure(EN, visitor.token, *SETTINGS.values())
    assert "Timing three steps" in waiting[0] and prop(waiting[1], "interactive") is False
    # 207 steps of 8 rows at 0.25 s, and 3 times 120 validation rows at 0.5 s: 594 s
    assert "About 10 min on this machine, by steps of these rows that were timed (2 s each)." in card
    assert prop(button, "visible") is False
    # It is measured once for everybody.
    assert "About 10 min" in tab.plan(EN, Visitor(context.store).token, *SETTINGS.values())[0]
    assert len(asked) == 1


def test_no_time_is_measured_while_a_job_runs(tab: Training, context: Context, visitor: Visitor) -> None:
    job_id = start(tab, visitor)
    context.store.start_job(job_id, 1)
    *_, (card, button) = tab.measure(EN, visitor.token, *SETTINGS.values())
    assert "another job is running" in card and prop(button, "interactive") is True


def test_one_measurement_at_a_time_and_a_failed_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch, data = Stopwatch("no such folder", "none"), load_dataset("support")

    def again(self: Stopwatch, data: Dataset, request: TrainRequest) -> Pace:
        with pytest.raises(PromptClfError, match="another measurement"):
            stopwatch.measure(data, request)
        raise PromptClfError("time: it could not be measured")

    monkeypatch.setattr(Stopwatch, "_run", again)
    for _ in range(2):  # the second one is not shut out by the first
        with pytest.raises(PromptClfError, match="could not be measured"):
            stopwatch.measure(data, TrainRequest())
    assert stopwatch.known(data) is None


@pytest.mark.slow
def test_steps_are_timed_in_a_process_of_their_own(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "PATIENCE", 1_800)  # it runs at the lowest priority, beside other tests
    stopwatch, data = Stopwatch(str(tiny_llama), "none"), load_dataset("support")
    found = stopwatch.measure(data, TrainRequest(batch_size=2))
    assert found.timed and 0 < found.row < 60 and 0 < found.check < 60
    assert stopwatch.known(data) == found


def test_a_pace_needs_a_step() -> None:
    job = Job("0" * 16, "train", "o", "cancelled", {"batch_size": 4}, "2026-11-24T01:02:03.000+00:00")
    assert pace_of(job, [{"event": "begin"}, epoch(1, 0.5)]) is None
    assert pace_of(job, [step(1), step(10, seconds=20.0)]) == Pace(0.5)


# ---- a training under way ------------------------------------------------------------------------


def test_a_training_is_watched(tab: Training, context: Context, visitor: Visitor) -> None:
    desk, store = tab.desk, context.store
    assert "No training yet" in desk.open(EN, visitor.token)[desk.view]
    job_id = start(tab, visitor)
    job = store.job(job_id)
    assert job is not None and (job.kind, job.owner, job.request["batch_size"]) == ("train", visitor.owner, 8)
    store.start_job(job_id, 1)
    store.add_event(job_id, {"event": "begin", "rows": {"train": 550}})
    updates = desk.look(EN, visitor.token, job_id, "")
    first = updates[desk.view]
    check_html(first)
    # The axes are there before the first step, and do not move.
    assert "0 / 207" in first and "Loading the model" in first
    assert first.count(">207</text>") == 2 and first.count("<svg") == 2

    for number in range(1, 70):
        store.add_event(job_id, step(number, loss=3.0 / number))
    store.add_event(job_id, epoch(1, 0.5))
    updates = desk.look(EN, visitor.token, job_id, updates[desk.seen])
    view = updates[desk.view]
    check_html(view)
    assert set(updates) == {desk.view, desk.seen}
    assert "69 / 207" in view and "50.0 %" in view
    assert "5 min" in view  # 138 steps of 2 s are left
    assert view.count(">207</text>") == 2

    # The page was closed and is opened again: the same job, and nothing is lost.
    again = desk.open(ZH, visitor.token)
    assert again[desk.shown] == job_id
    check_html(again[desk.view])
    assert "69 / 207" in again[desk.view] and "剩余" in again[desk.view]
    assert prop(again[desk.timer], "active") is True


def test_a_server_that_was_started_anew_finds_the_job(
    tab: Training, context: Context, visitor: Visitor
) -> None:
    job_id = start(tab, visitor)
    updates = tab.desk.look(EN, visitor.token, "", "")  # the session's state is gone
    assert updates[tab.desk.shown] == job_id


def test_steps_that_come_again_after_a_resume_count_once() -> None:
    events = [step(1), step(2), step(3, loss=9.0), step(3, loss=2.0), step(4)]
    job = Job(
        "0" * 16,
        "train",
        "o",
        "running",
        {"task": "support"},
        "2026-11-24T01:02:03.000+00:00",
        "2026-11-24T01:02:04.000+00:00",
    )
    view = training_view(job, events, NASTY, None, "en")
    check_html(view)
    assert "4 / 207" in view
    path = re.search(r'class="curve" d="([^"]+)"', view)
    assert path is not None and path[1].count("L") == 3


def test_long_curves_are_thinned_and_end_where_training_is() -> None:
    steps = {number: step(number, of=5000) for number in range(1, 5001)}
    view = curves(steps, {}, 5000, "en")
    path = re.search(r'class="curve" d="([^"]+)"', view)
    assert path is not None and 100 < path[1].count("L") < 320
    assert path[1].split("L")[-1].startswith("336.0 ")  # the right edge


def test_double_starts_make_one_job(tab: Training, context: Context, visitor: Visitor) -> None:
    start(tab, visitor)
    updates = tab.desk.open(EN, visitor.token)
    assert prop(updates[tab.desk.start], "interactive") is False
    assert str(prop(updates[tab.desk.start], "value")).find("train_busy") > 0


# ---- what came of it -----------------------------------------------------------------------------


def test_the_result_and_its_use(tab: Training, context: Context, visitor: Visitor) -> None:
    job_id = visitor.train("support", context.service.model)
    with_result = start(tab, visitor)
    context.store.start_job(with_result, 1)
    context.store.add_event(with_result, step(207))
    finish(context, with_result, RESULT)
    updates = tab.desk.open(EN, visitor.token)
    view = updates[tab.desk.view]
    check_html(view)
    assert "Trained on Support" in view
    assert "Macro-F1 92.3 %, accuracy 93.0 %" in view
    assert "on 120 validation rows, after epoch 2 of 3" in view
    assert 'data-act="use"' in view
    assert updates[tab.ended] == f"{with_result} done"
    choices = prop(updates[tab.desk.earlier], "choices")
    assert [value for _, value in choices] == [with_result, job_id]
    assert choices[0][0].endswith("Support · macro-F1 92.3 %")
    check_html(tab.desk.open(ZH, visitor.token)[tab.desk.view])

    task, mode, adapter, said = tab.adopt(EN, visitor.token, job_id)
    assert (prop(task, "value"), mode, prop(adapter, "value")) == ("support", "lora", job_id)
    assert "answers now" in said


def test_others_adapters_are_not_to_be_had(tab: Training, context: Context, visitor: Visitor) -> None:
    theirs = Visitor(context.store).train("support", context.service.model)
    for token in (visitor.token, None):
        task, mode, adapter, said = tab.adopt(EN, token, theirs)
        assert is_skip(task) and is_skip(mode) and is_skip(adapter)
        assert "pc-error" in said
    unfinished = start(tab, visitor)
    assert "pc-error" in tab.adopt(EN, visitor.token, unfinished)[3]


@pytest.mark.parametrize("state", ["failed", "cancelled", "interrupted"])
def test_every_end_is_told(tab: Training, context: Context, visitor: Visitor, state: Any) -> None:
    job_id = start(tab, visitor)
    context.store.start_job(job_id, 1)
    context.store.add_event(job_id, step(3))
    context.store.end_job(job_id, state, error=f"loss {NASTY}" if state == "failed" else None)
    for request in (EN, ZH):
        updates = tab.desk.open(request, visitor.token)
        check_html(updates[tab.desk.view])
        assert updates[tab.desk.view].count("<svg") == 2  # how far it came
    assert prop(updates[tab.desk.again], "visible") is (state == "interrupted")
    assert ("&lt;img" in updates[tab.desk.view]) is (state == "failed")


def test_no_trainings_here(tab: Training, context: Context, visitor: Visitor) -> None:
    context.jobs.training = False
    updates = tab.desk.begin(EN, visitor.token, *SETTINGS.values())
    assert "takes no trainings" in updates[tab.desk.problem]


def test_the_request() -> None:
    assert request_of("support", 50.0, 2.0, 0.001, 4, 16, None) == {
        "task": "support",
        "rows": 50,
        "epochs": 2,
        "rank": 4,
        "batch_size": 16,
        "learning_rate": 0.001,
    }
    with pytest.raises(PromptClfError, match="task: "):
        request_of(OWN, 50, 2, 0.001, 4, 16, 0)
