"""The Classify tab: asking, stopping, why, wrong, and what is stored of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes import FakeModel
from promptclf.jobs.store import StoreError
from promptclf.ui.core.conversation import History
from promptclf.ui.page.context import Context
from promptclf.ui.page.shared import examples
from promptclf.ui.tabs.classify import Chat
from promptclf.ui.tabs.feedback import Feedback
from visitors import EN, LABELS, PLAIN, SUPPORT, ZH, Visitor, alone, make_context, pressed, settings


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone(monkeypatch, tmp_path)


@pytest.fixture
def model() -> FakeModel:
    return FakeModel(SUPPORT, strength=4.0)


@pytest.fixture
def context(model: FakeModel, tmp_path: Path) -> Context:
    return make_context(model, tmp_path / "store")


@pytest.fixture
def visitor(context: Context) -> Visitor:
    return Visitor(context.store)


def ask(chat: Chat, history: History, text: str, mode: str = "few-shot", **changes: Any) -> tuple[Any, str]:
    values = {"task": "support", "labels": LABELS, "adapter": "", "token": None, "request": EN, **changes}
    return chat.ask(text, mode, *(values[k] for k in ("task", "labels", "adapter", "token")), history, EN)


def test_a_conversation(context: Context) -> None:
    chat, history = Chat(context), History()
    box, view = ask(chat, history, "my <parcel>")
    assert (settings(box)["submit_btn"], settings(box)["stop_btn"]) == (False, True)
    assert "value" not in settings(box)  # the visitor may be typing the next one
    assert "my &lt;parcel&gt;" in view
    assert "pc-waiting" in view
    ask(chat, history, "I was charged twice")
    *_, (box, view) = chat.answer(history, EN)
    assert settings(box)["submit_btn"] is True
    assert "pc-waiting" not in view
    assert view.index("delivery status") < view.index("payment problem</")
    assert 'data-live="Answer: payment problem' in view
    assert not history.waiting

    assert ask(chat, history, "  ")[1] == view
    assert "of 1 to 20,000 characters, got 20,001" in ask(chat, history, "x" * 20_001)[1]
    ask(chat, history, "a parcel", "few-shot", labels="refund\n\n invoice \n")
    assert "needs labelled examples" in [*chat.answer(history, EN)][-1][1]
    assert "data set of yours" in ask(chat, history, "a", task="0" * 16)[1]
    assert "pc-empty" in chat.clear(history, EN)[1]
    assert "选一个示例" in [*chat.answer(history, ZH)][-1][1]


def test_examples_are_asked_by_their_number(context: Context, visitor: Visitor) -> None:
    chat, history = Chat(context), History()
    texts = examples(context.service, "support", None)
    assert chat.chips("support", None).count("<button") == len(texts)
    for wrong in (99, -1, "0", None, 1.5):
        _, view = chat.try_example("few-shot", *PLAIN, None, history, pressed(number=wrong), EN)
        assert "pc-empty" in view
    chat.try_example("few-shot", *PLAIN, None, history, pressed(number=1), EN)
    assert history.turns[0].text == texts[1]
    data = visitor.upload()
    assert examples(context.service, data, visitor.token) == ("a red thing of test",)
    assert examples(context.service, data, None) == ()
    assert "a red thing" in chat.chips(data, visitor.token)


def test_stop_gives_up_on_what_waits(context: Context) -> None:
    chat, history = Chat(context), History()
    for text in ("one", "two", "three"):
        ask(chat, history, text)
    answers = chat.answer(history, EN)
    next(answers)
    box, view = chat.stop(history, EN)
    assert settings(box)["submit_btn"] is True
    assert view.count(">Stopped.<") == 2
    assert "pc-waiting" not in view
    # The thread of a cancelled event runs on: what it brings comes too late.
    assert [*answers][-1][1] == view
    ask(chat, history, "a parcel")
    assert "delivery status" in [*chat.answer(history, EN)][-1][1]


def test_an_answer_that_comes_after_a_stop_is_dropped(
    context: Context, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, history = Chat(context), History()
    score = model.score

    def slow(*args: Any, **options: Any) -> Any:
        chat.stop(history, EN)
        return score(*args, **options)

    context.service.classify("x", "few-shot")
    ask(chat, history, "my parcel")
    monkeypatch.setattr(model, "score", slow)
    [*_, (_, view)] = chat.answer(history, EN)
    assert "Stopped." in view
    assert history.turns[0].answer is None


def test_why_and_wrong(context: Context, visitor: Visitor) -> None:
    chat, feedback, history = Chat(context), Feedback(context), History()
    ask(chat, history, "my parcel is <late>")
    [*_] = chat.answer(history, EN)

    def press(act: Any, label: Any = "", turn: Any = 1, token: Any = visitor.token) -> list[str]:
        return [*chat.act(history, token, pressed(act=act, turn=turn, label=label), EN)]

    waiting, shown = press("why")
    assert "Leaving out" in waiting
    assert "pc-for" in shown
    assert "my parcel is &lt;late&gt;" in shown
    assert history.turns[0].why is not None
    assert "pc-part" not in press("why")[-1]
    [*_, wrong] = press("wrong")
    assert 'data-act="save"' in wrong

    key = history.turns[0].key
    for label in ("no label of these", None, ["refund"], {}):
        assert 'data-act="save"' in press("save", label)[-1]
    assert "reload the page" in press("save", "refund", token="nobody")[-1]
    assert context.store.feedback(visitor.owner) == []
    assert "Saved: the right label is “refund”" in press("save", "refund")[-1]
    [row] = context.store.feedback(visitor.owner)
    wanted = ("my parcel is <late>", "support", "few-shot", "delivery status", "refund", key)
    assert tuple(row[k] for k in ("text", "task", "mode", "predicted", "label", "key")) == wanted
    press("save", "refund")
    assert len(context.store.feedback(visitor.owner)) == 1  # pressed twice, stored once

    assert "my parcel is &lt;late&gt;" in feedback.show(visitor.token, EN)
    stranger = Visitor(context.store)
    assert "Nothing is stored" in feedback.show(stranger.token, EN)
    feedback.delete(stranger.token, pressed(key=key), EN)
    assert len(context.store.feedback(visitor.owner)) == 1
    assert 'data-act="save"' in press("unsave")[-1]
    assert context.store.feedback(visitor.owner) == []
    press("save", "refund")
    again = history.turns[0].key
    assert again != key
    assert "Nothing is stored" in feedback.delete(visitor.token, pressed(key=again), EN)
    for odd in ({"act": "why", "turn": "1"}, {"act": "why", "turn": 9}, {"act": "explode", "turn": 1}, {}):
        assert len([*chat.act(history, visitor.token, pressed(**odd), EN)]) == 1


def test_feedback_is_saved_only_if_it_is_stored(
    context: Context, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, history = Chat(context), History()
    ask(chat, history, "my parcel")
    [*_] = chat.answer(history, EN)
    [*_] = chat.act(history, visitor.token, pressed(act="wrong", turn=1), EN)

    def full(*args: Any, **values: Any) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(context.store, "save_feedback", full)
    [view] = chat.act(history, visitor.token, pressed(act="save", turn=1, label="refund"), EN)
    assert "the disk is full" in view
    assert "Saved" not in view
    assert history.turns[0].saved is None
