"""The panel and the tabs Compare and Prompts, and files of texts: handlers, called as gradio calls them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from fakes import FakeModel
from promptclf.errors import PromptClfError
from promptclf.ui.core.conversation import History
from promptclf.ui.page.choices import Choices
from promptclf.ui.page.context import Context
from promptclf.ui.page.panel import OWN, choose_task, task_choices, use_adapter
from promptclf.ui.page.shared import EXAMPLES
from promptclf.ui.tabs.classify import Chat
from promptclf.ui.tabs.compare import Compare
from promptclf.ui.tabs.files import Batch, Files
from promptclf.ui.tabs.prompts import FIELDS, Prompts
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


# ---- the panel -----------------------------------------------------------------------------------


def test_the_panel_follows_the_task(context: Context, visitor: Visitor, model: FakeModel) -> None:
    choices = Choices(context)
    data = visitor.upload("my <data>")
    token, task, shown, adapter, status, mode, note, summary = choices.start(
        visitor.token, "support", LABELS, "lora", EN
    )
    assert token == visitor.token
    assert [value for _, value in settings(task)["choices"]] == ["support", data, OWN]
    assert "value" not in settings(task)  # what was chosen meanwhile stays chosen
    assert "fake" in shown
    assert (settings(adapter)["visible"], mode, note) == (False, "zero-shot", "")
    assert "10 labels" in status
    assert "Support" in summary

    labels, adapter, status, mode, note, summary = choices.task(data, "few-shot", "", visitor.token, ZH)
    assert (labels, mode, note) == ("red\nblue", "few-shot", "")
    assert settings(adapter)["visible"] is False
    assert "2 个标签" in status
    assert "my &lt;data&gt; (6)" in summary

    job = visitor.train(data, model)
    _, adapter, _, mode, _, _ = choices.task(data, "lora", "", visitor.token, EN)
    assert (settings(adapter)["value"], settings(adapter)["visible"], mode) == (job, True, "lora")

    labels, adapter, status, mode, _, _ = choices.task(OWN, "lora", job, visitor.token, EN)
    assert (labels, mode) == ("positive\nnegative", "zero-shot")
    assert settings(adapter)["value"] in [value for _, value in settings(adapter)["choices"]]
    assert "only zero-shot" in status

    context.store.delete_dataset(data, visitor.owner)
    labels, _, status, *_ = choices.task(data, "lora", "", visitor.token, EN)
    assert labels == ""
    assert 'role="alert"' in status
    assert choices.task(data, "lora", "", "no token", EN)[0] == ""


def test_edited_labels_are_labels_of_ones_own(context: Context, visitor: Visitor) -> None:
    choices = Choices(context)
    status, mode, note, summary = choices.labels("a\n\n b \n", "support", "few-shot", visitor.token, EN)
    assert mode == "zero-shot"
    assert 'data-act="restore"' in status
    assert "2 labels" in summary
    assert note == ""
    note, _ = choices.mode("lora", "support", "a\nb", visitor.token, EN)
    assert "LoRA needs labelled examples" in note
    note, _ = choices.mode("lora", "support", LABELS, visitor.token, ZH)
    assert "适配器" in note
    labels, _, status, *_ = choices.restore("support", "zero-shot", "", visitor.token, EN)
    assert labels == LABELS
    assert "restore" not in status


def test_tabs_can_choose_for_the_panel(context: Context, visitor: Visitor, model: FakeModel) -> None:
    data = visitor.upload()
    assert settings(choose_task(context, visitor.token, data, "en"))["value"] == data
    stranger = Visitor(context.store)
    assert settings(choose_task(context, stranger.token, data, "en"))["value"] == "support"
    assert [value for _, value in task_choices(context.store, None, "zh")] == ["support", OWN]

    job = visitor.train(data, model)
    task, mode, adapter = use_adapter(context, visitor.token, job, "en")
    assert (settings(task)["value"], mode, settings(adapter)["value"]) == (data, "lora", job)
    with pytest.raises(PromptClfError, match=r"^job: no job"):
        use_adapter(context, stranger.token, job, "en")
    waiting = context.store.add_job("train", visitor.owner, {"task": data})
    with pytest.raises(PromptClfError, match=r"^job: expected a finished training"):
        use_adapter(context, visitor.token, waiting.id, "en")


# ---- Compare -------------------------------------------------------------------------------------


def test_side_by_side(context: Context, visitor: Visitor, model: FakeModel) -> None:
    compare = Compare(context)
    views = list(compare.answers("my parcel", *PLAIN, None, EN))
    assert [view.count("pc-waiting") for view in views] == [3, 2, 1, 0, 0]
    assert "Both modes say “delivery status”." in views[-1]
    assert "needs a trained adapter" in views[-1]
    [refused] = compare.answers("", *PLAIN, None, EN)
    assert "text: expected text" in refused
    *_, view = compare.answers("my parcel", *PLAIN, None, ZH)
    assert "两种模式都认为是“delivery status”。" in view
    *_, view = compare.answers("a parcel", OWN, "refund\ninvoice", "", None, EN)
    assert "Only Zero-shot could answer." in view

    data = visitor.upload()
    visitor.train(data, model)
    *_, view = compare.answers("a red thing", data, "red\nblue", "", visitor.token, EN)
    assert "All three modes" in view or "says “" in view
    [refused] = compare.answers("a red thing", data, "red\nblue", "", None, EN)
    assert "data set of yours" in refused
    assert compare.change_task("support", None)[0]


# ---- many texts ----------------------------------------------------------------------------------


def upload(files: Files, batch: Batch, folder: Path, name: str, content: bytes) -> tuple[Any, ...]:
    path = folder / name
    path.write_bytes(content)
    outputs = files.read(str(path), batch, EN)
    assert not path.exists()  # read, then deleted
    return outputs


def test_a_file_goes_in_and_comes_out(context: Context, tmp_path: Path) -> None:
    files, batch = Files(context, all_modes=False), Batch()
    rows = "id,message\n" + "".join(f"{n},my parcel {n}\n" for n in range(19)) + "19,=SUM(1)\n"
    about, column, start, *_ = upload(files, batch, tmp_path, "mails.csv", rows.encode())
    assert "mails.csv: 20 texts" in about
    assert (settings(column)["value"], settings(column)["choices"]) == ("message", ["id", "message"])
    assert settings(start)["interactive"] is True

    shown, labelled = [], ""
    for progress, go, stop, download in files.work(batch, "message", "few-shot", *PLAIN, None, EN):
        shown.append((progress, settings(go)["interactive"], settings(stop)["visible"]))
        if settings(download)["visible"]:
            labelled = Path(settings(download)["value"]).read_text(encoding="utf-8")
    assert [state[1:] for state in shown] == [(False, True)] * 4 + [(True, False)]
    assert 'aria-valuenow="16" aria-valuemin="0" aria-valuemax="20"' in shown[2][0]
    assert "20 texts in" in shown[-1][0]
    table = list(csv.DictReader(labelled.splitlines()))
    assert [row["id"] for row in table] == [str(n) for n in range(20)]
    assert table[0]["label"] == "delivery status"
    assert table[19]["message"] == "'=SUM(1)"  # no spreadsheet runs it
    assert float(table[0]["probability"]) == pytest.approx(float(table[0]["p(delivery status)"]))
    assert not Path(settings(download)["value"]).exists()


def test_a_file_goes_through_every_mode(context: Context, tmp_path: Path) -> None:
    files, batch = Files(context, all_modes=True), Batch()
    about, column, *_ = upload(files, batch, tmp_path, "mails.txt", b"my parcel\n\nI was charged\n")
    assert "2 texts" in about
    assert settings(column)["visible"] is False
    outputs = []
    for *rest, download in files.work(batch, None, "lora", *PLAIN, None, EN):
        outputs.append(rest[0])
        if settings(download)["visible"]:
            text = Path(settings(download)["value"]).read_text(encoding="utf-8")
    [header, first, _] = list(csv.reader(text.splitlines()))
    assert header == ["text", "zero-shot", "p(zero-shot)", "few-shot", "p(few-shot)", "agree"]
    assert first[1] == first[3] == "delivery status"
    assert "The modes agree on 2 of 2 texts" in outputs[-1]
    assert "LoRA" not in outputs[-1]


def test_a_stopped_file_ends(context: Context, model: FakeModel, tmp_path: Path) -> None:
    files, batch = Files(context, all_modes=False), Batch()
    upload(files, batch, tmp_path, "a.txt", b"\n".join(b"text %d" % n for n in range(40)))
    work = files.work(batch, None, "few-shot", *PLAIN, None, EN)
    next(work), next(work)
    told, start, stop = files.stop(batch, EN)
    assert "Stopped" in told
    assert (settings(start)["interactive"], settings(stop)["visible"]) == (True, False)
    calls = len(model.calls)
    assert list(work) == []
    assert len(model.calls) <= calls + 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"a,b\n1,2,3\n", "expected 2 fields"),
        ("a.csv", b"text\n", "expected rows, got none"),
        ("a.txt", b"", "expected texts, one a line, got none"),
        ("a.txt", b"\xff\xfe\xfd", "expected UTF-8"),
        ("a.csv", b"PK\x03\x04" + b"x" * 50, "zip"),
        ("a.txt", b"x\n" * 10_001, "expected 1 to 10,000 texts, got 10,001"),
        ("a.jsonl", b'{"text": "a"}\n{', "expected a JSON object"),
        ("<b>.csv", b"a,b\n1\n", "&lt;b&gt;"),
    ],
)
def test_a_file_that_cannot_be_read(
    context: Context, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    files, batch = Files(context, all_modes=False), Batch()
    about, _, start, *_ = upload(files, batch, tmp_path, name, content)
    assert words in about
    assert 'role="alert"' in about
    assert settings(start)["interactive"] is False
    [(told, *_)] = files.work(batch, "text", "few-shot", *PLAIN, None, EN)
    assert "choose a file first" in told


def test_a_file_with_a_wrong_choice(context: Context, tmp_path: Path) -> None:
    files, batch = Files(context, all_modes=False), Batch()
    upload(files, batch, tmp_path, "a.csv", b"text,n\nmy parcel,1\n")
    for column, mode, task, words in (
        ("nothing", "few-shot", "support", "column: expected one of"),
        (["text"], "few-shot", "support", "column: expected one of"),
        ("text", "magic", "support", "expected one of zero-shot"),
        ("text", "lora", "support", "needs a trained adapter"),
        ("text", "few-shot", "0" * 16, "data set of yours"),
    ):
        outputs = list(files.work(batch, column, mode, task, LABELS, "", None, EN))  # type: ignore[arg-type]
        assert words in outputs[-1][0]
        assert settings(outputs[-1][1])["interactive"] is True


# ---- Prompts -------------------------------------------------------------------------------------

TEMPLATE = ("completion", False, "en", "", "Text: {text}", "Label:", " {label}")


def edited(**changes: Any) -> tuple[Any, ...]:
    names = ("name", "chat", "language", *FIELDS)
    return tuple({**dict(zip(names, TEMPLATE, strict=True)), **changes}[name] for name in names)


def test_a_template_shows_what_the_model_sees(context: Context) -> None:
    prompts = Prompts(context)
    assert prompts.load("chat")[0] is True
    assert prompts.load("../chat") == prompts.load("intent")  # the task's own
    view, *faults = prompts.preview(*TEMPLATE, "a <b> {labels}", "zero-shot", *PLAIN, None, EN)
    assert "Text: a &lt;b&gt; {labels}\nLabel:" in view  # filled once
    assert faults == [""] * 4
    assert "data:text/yaml;base64," in view
    system = edited(system="{instruction} {labels}", language="zh")
    view, *_ = prompts.preview(*system, "x", "zero-shot", OWN, "甲\n乙", "", None, EN)
    assert "请选择最合适的标签。 甲、乙" in view
    view, *_ = prompts.preview(*TEMPLATE, "Where is my parcel?", "few-shot", *PLAIN, None, EN)
    assert view.count("Label:") > 2
    view, *_ = prompts.preview(*TEMPLATE, "x", "zero-shot", *PLAIN, None, ZH)
    assert "模型看到的内容" in view


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        ({"user": "nothing"}, 2, "missing {text}"),
        ({"user": "{text} {labels} {magic}"}, 2, "unknown placeholder {magic}"),
        ({"system": "{text}"}, 1, "unknown placeholder {text}"),
        ({"cue": "{labels}"}, 3, "unknown placeholder {labels}"),
        ({"answer": "x"}, 4, "missing {label}"),
        ({"user": "{text} {pair}"}, 0, "shows a {pair}"),
        ({"user": "{text}" + "x" * 4_000}, 0, "user: expected at most 4,000 characters"),
        ({"system": None}, 0, "system: expected at most"),
    ],
)
def test_what_is_wrong_stands_beside_it(
    context: Context, changes: dict[str, Any], place: int, words: str
) -> None:
    outputs = Prompts(context).preview(*edited(**changes), "x", "zero-shot", *PLAIN, None, EN)
    assert words in outputs[place]
    assert 'role="alert"' in outputs[place]
    assert not any("alert" in output for n, output in enumerate(outputs) if n != place)


def test_the_template_follows_the_task_unless_it_was_edited(context: Context, visitor: Visitor) -> None:
    prompts, data = Prompts(context), visitor.upload()
    parts = prompts.load("intent")
    name, sample, card = prompts.change_task("intent", *parts, data, visitor.token)
    assert name == "completion"
    assert sample and not card
    name, *_ = prompts.change_task("completion", *prompts.load("completion"), "support", visitor.token)
    assert name == "intent"
    name, *_ = prompts.change_task("intent", *prompts.load("intent"), OWN, visitor.token)
    assert name == "completion"
    name, sample, _ = prompts.change_task("intent", *parts[:-1], " {label}!", data, visitor.token)
    assert name == "intent" and sample


def test_the_offered_text_follows_the_task_unless_one_was_written(context: Context) -> None:
    chat = Chat(context)
    first, own = EXAMPLES["support"][0], EXAMPLES[OWN][0]
    chips, box, offered = chat.change_task(first, first, OWN, None)
    assert own in chips and settings(box)["value"] == offered == own
    for written in ("", "my own words"):
        _, box, offered = chat.change_task(written, first, OWN, None)
        assert "value" not in settings(box) and offered == own


def test_placeholders_stay_literal(context: Context) -> None:
    for nasty in ("{{7*7}}", "{0.__class__}", "%(text)s", "$text", "{% for %}", "${7*7}", "<script>"):
        view, *_ = Prompts(context).preview(
            *edited(user="{text} " + nasty), "x", "zero-shot", *PLAIN, None, EN
        )
        assert "<script>" not in view
        assert nasty.replace("<", "&lt;").replace(">", "&gt;") in view


def test_a_template_answers(context: Context) -> None:
    prompts = Prompts(context)
    for mode in ("zero-shot", "few-shot", "lora"):
        card = prompts.answer(*TEMPLATE, "my parcel", mode, *PLAIN, None, EN)
        assert "delivery status" in card
        assert ("Few-shot" if mode == "few-shot" else "Zero-shot") in card
    assert "missing {text}" in prompts.answer(*edited(user="x"), "x", "zero-shot", *PLAIN, None, EN)
    assert "needs labelled examples" in prompts.answer(*TEMPLATE, "x", "few-shot", OWN, "a\nb", "", None, EN)


# ---- all tabs ------------------------------------------------------------------------------------


def test_a_bug_leaves_no_card_waiting(
    context: Context, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("secret")

    chat, history = Chat(context), History()
    ask = ("few-shot", *PLAIN, None, history, EN)
    chat.ask("first", *ask)
    [*_] = chat.answer(history, EN)
    monkeypatch.setattr(model, "score", fail)
    chat.ask("my parcel", *ask)
    compare, prompts = Compare(context), Prompts(context)
    views = [
        [*chat.answer(history, EN)][-1][1],
        [*chat.act(history, None, pressed(act="why", turn=1), EN)][-1],
        [*compare.answers("my parcel", *PLAIN, None, EN)][-1],
        prompts.answer(*TEMPLATE, "my parcel", "few-shot", *PLAIN, None, EN),
    ]
    for view in views:
        assert "Something went wrong" in view
        assert "pc-waiting" not in view
        assert "secret" not in view
