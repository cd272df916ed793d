"""The Data tab's handlers, called as gradio calls them: from a file to a data set, and its end."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from promptclf.data.dataset import Dataset
from promptclf.data.doctor import diagnose
from promptclf.errors import PromptClfError
from promptclf.task import Example, Task
from promptclf.ui.core.upload import (
    build_dataset,
)
from promptclf.ui.page.context import Context
from promptclf.ui.tabs.data import DataDesk
from promptclf.ui.views import data as data_cards
from promptclf.ui.views.data import examine, findings_card, labels_card, sample_card
from promptclf.ui.words import Language
from tab_context import COLOURS, CSV, NASTY, build, check_html, is_skip, prop, put
from visitors import Visitor, asking

EN, ZH = asking("en"), asking("zh-CN")
LANGUAGES: tuple[Language, ...] = ("en", "zh")


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROMPTCLF_HOME", str(tmp_path / "home"))


@pytest.fixture
def built(tmp_path: Path) -> tuple[Context, DataDesk]:
    return build(tmp_path, DataDesk)


@pytest.fixture
def context(built: tuple[Context, DataDesk]) -> Context:
    return built[0]


@pytest.fixture
def tab(built: tuple[Context, DataDesk]) -> DataDesk:
    return built[1]


@pytest.fixture
def visitor(context: Context) -> Visitor:
    return Visitor(context.store)


def shape(tab: DataDesk, updates: dict[Any, Any], **changes: Any) -> list[Any]:
    """What the form holds after a file was read."""
    values = {
        "draft": updates[tab.draft],
        "text": prop(updates[tab.text], "value"),
        "label": prop(updates[tab.label], "value"),
        "labels": updates[tab.labels],
        "instruction": updates[tab.instruction],
        "template": prop(updates[tab.template], "value"),
        "name": updates[tab.name],
    }
    return list({**values, **changes}.values())


# ---- the cards -----------------------------------------------------------------------------------

BAD = {
    "train": [
        Example("same text of some length", "a"),
        Example("same text of some length", "a"),
        Example(f"{NASTY} in conflict, as long as it is", "a"),
        Example(f"{NASTY} in conflict, as long as it is", "b"),
        Example("", "a"),
        Example("rare", "A"),
        *(Example(f"row {n} with words {n * 7919 % 101} and {n * 104729 % 997}", "a") for n in range(60)),
    ],
    "test": [
        Example("same text of some length", "a"),
        Example("same text of some lengths", "a"),
        Example("same text of some length!", "b"),
    ],
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_finding_has_words(language: Language) -> None:
    task = Task("t", ("a", "b", "never seen"))
    findings = [*diagnose(BAD), *diagnose(BAD, task=task)]
    kinds = {finding.kind for finding in findings}
    assert kinds >= {
        "empty_texts",
        "duplicates",
        "duplicates_across_splits",
        "conflicting_labels",
        "near_duplicates",
        "near_duplicates_across_splits",
        "absent_classes",
        "small_classes",
        "imbalance",
        "label_spellings",
    }
    card = findings_card(findings, 9, BAD, language)
    check_html(card)
    assert "&lt;img" in card


def test_the_rows_of_a_finding_are_shown() -> None:
    findings, examined = examine(BAD)
    card = findings_card(findings, examined, BAD, "en")
    assert "The doctor looked at all 69 rows." in card
    assert "Row Training 1, Training 2, Test 1:" in card  # a repeated text, in both parts
    assert "Texts with more than one label: 1." in card
    nothing = findings_card([], 3, {"train": BAD["train"][:3]}, "en")
    assert "Nothing stands out" in nothing


def test_of_very_many_rows_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_cards, "EXAMINED", 50)
    rows = {"train": [Example("twice" if n in (700, 701) else f"{n}", "ab"[n % 2]) for n in range(1000)]}
    rows["train"] += [Example("", "a")] * 1000
    findings, examined = examine(rows)
    assert examined == 50
    empty = next(finding for finding in findings if finding.kind == "empty_texts")
    assert empty.rows and all(row.row > 1000 for row in empty.rows)  # numbers of the whole data
    card = findings_card(findings, examined, rows, "en")
    assert "50 of 2,000 rows" in card


@pytest.mark.parametrize("language", LANGUAGES)
def test_counts_and_samples(language: Language) -> None:
    rows = [Example(f"{NASTY} {n}", f"<b>{n % 2}") for n in range(20)]
    data = build_dataset("x", rows, "<b>0: <i>zero\n<b>1")
    for card in (labels_card(data, language), sample_card(data, language)):
        check_html(card)
        assert "&lt;b&gt;0" in card
    assert labels_card(data, language).count("<b>10</b>") == 2
    assert "<b>20</b>" in labels_card(data, language)


# ---- the tab -------------------------------------------------------------------------------------


def test_from_a_file_to_a_data_set(tab: DataDesk, context: Context, visitor: Visitor, tmp_path: Path) -> None:
    path = put(tmp_path, CSV, "my colours.csv")
    read = tab.read(EN, visitor.token, path)
    assert not Path(path).exists()
    assert read[tab.file] is None and read[tab.problem] == ""
    assert prop(read[tab.form], "visible") is True
    assert prop(read[tab.text], "choices") == ["id", "message", "colour"] or prop(read[tab.text], "value")
    assert (prop(read[tab.text], "value"), prop(read[tab.label], "value")) == ("message", None)
    assert "30 rows, 3 columns · Text: guessed by its name" in read[tab.guessed]
    assert "Label: choose the column, it could not be guessed" in read[tab.guessed]
    assert "label: expected a column" in tab.look(EN, visitor.token, *shape(tab, read))

    chosen = tab.choose(EN, visitor.token, read[tab.draft], "message", "colour")
    assert sorted(chosen[tab.labels].splitlines()) == sorted(COLOURS)
    form = shape(
        tab, read, label="colour", labels="red -> warm: like fire\nblue\ngreen", instruction="Which?"
    )
    assert "Reading the rows" in read[tab.overview]
    card = tab.look(EN, visitor.token, *form)
    check_html(card)
    assert "warm" in card and "like fire" in card
    assert "looked at all 30 rows" in card

    kept = tab.keep(EN, visitor.token, *form)
    assert kept[tab.problem] == ""
    assert "“my colours” is saved" in kept[tab.overview]
    [stored] = context.store.datasets(visitor.owner)
    assert prop(kept[context.panel.task], "value") == stored.id
    assert [value for _, value in prop(kept[tab.mine], "choices")] == [stored.id]
    data = context.store.dataset(stored.id, visitor.owner)
    assert data.task.labels == ("warm", "blue", "green")
    assert (data.task.instruction, data.task.template) == ("Which?", "completion")
    assert stored.rows == {"train": 18, "validation": 6, "test": 6}
    # The draft is gone: a look that was under way shows nothing, and a second click saves nothing.
    assert is_skip(tab.look(EN, visitor.token, *form))
    assert "upload it again" in tab.keep(EN, visitor.token, *form)[tab.problem]
    assert len(context.store.datasets(visitor.owner)) == 1


def test_a_chinese_file_gets_chinese_prompts(tab: DataDesk, visitor: Visitor, tmp_path: Path) -> None:
    content = "标题,类别\n" + "".join(f"第{n}条新闻,{'体育' if n % 2 else '财经'}\n" for n in range(20))
    read = tab.read(ZH, visitor.token, put(tmp_path, content, "新闻.csv"))
    assert prop(read[tab.template], "value") == "completion_zh"
    assert set(prop(read[tab.template], "choices")) >= {"chat_zh", "topic_zh"}
    assert "20 行，2 列" in read[tab.guessed]
    card = tab.look(ZH, visitor.token, *shape(tab, read))
    check_html(card)
    assert "体育" in card and "已检查全部 20 行" in card


@pytest.mark.parametrize("content", [gzip.compress(b"x" * 100, mtime=0), b"text,label\na,b,c\n", b""])
def test_a_refused_file_is_deleted_too(
    tab: DataDesk, visitor: Visitor, tmp_path: Path, content: bytes
) -> None:
    path = put(tmp_path, content, f"{NASTY}.csv".replace("/", ""))
    updates = tab.read(EN, visitor.token, path)
    assert not Path(path).exists()
    check_html(updates[tab.problem])
    assert "pc-error" in updates[tab.problem]
    assert prop(updates[tab.form], "visible") is False
    path = put(tmp_path, CSV)
    assert "reload the page" in tab.read(EN, "no token", path)[tab.problem]
    assert not Path(path).exists()
    assert tab.read(EN, visitor.token, None) == {tab.problem: ""}


def test_what_is_wrong_with_the_form_is_told(
    tab: DataDesk, context: Context, visitor: Visitor, tmp_path: Path
) -> None:
    read = tab.read(EN, visitor.token, put(tmp_path, CSV))
    for changes, said in (
        ({"label": "colour", "labels": "red"}, "is missing"),
        ({"label": "colour", "labels": "red\nblue -> red\ngreen -> red"}, "2 to 500 labels"),
        ({"label": "message"}, "got the same"),
        ({"label": "no such"}, "no such"),
        ({"label": "colour", "labels": "red\nblue\ngreen", "template": "../x"}, "template: "),
        ({"label": "colour", "labels": "red\nblue\ngreen", "name": ""}, "name: "),
    ):
        form = shape(tab, read, **changes)
        updates = tab.keep(EN, visitor.token, *form)
        check_html(updates[tab.problem])
        assert said in updates[tab.problem], changes
        check_html(tab.look(EN, visitor.token, *form))
    assert context.store.datasets(visitor.owner) == []


def test_a_look_that_ends_after_the_data_was_saved_shows_nothing(
    tab: DataDesk, visitor: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = tab.read(EN, visitor.token, put(tmp_path, CSV))
    form = shape(tab, read, label="colour", labels="red\nblue\ngreen")

    def saved_meanwhile(rows: Any) -> Any:
        assert tab.keep(EN, visitor.token, *form)[tab.problem] == ""
        return examine(rows)

    monkeypatch.setattr("promptclf.ui.tabs.data.examine", saved_meanwhile)
    assert is_skip(tab.look(EN, visitor.token, *form))


def test_a_strangers_draft_is_not_to_be_had(
    tab: DataDesk, context: Context, visitor: Visitor, tmp_path: Path
) -> None:
    read = tab.read(EN, visitor.token, put(tmp_path, CSV))
    form = shape(tab, read, label="colour", labels="red\nblue\ngreen")
    for token in (Visitor(context.store).token, None):
        assert "pc-error" in tab.keep(EN, token, *form)[tab.problem]
        assert is_skip(tab.look(EN, token, *form))
        assert "pc-error" in tab.choose(EN, token, read[tab.draft], "message", "colour")[tab.problem]
    tab.drop(EN, visitor.token)
    assert "upload it again" in tab.keep(EN, visitor.token, *form)[tab.problem]


def test_data_sets_are_listed_shown_and_deleted(tab: DataDesk, context: Context, visitor: Visitor) -> None:
    assert prop(tab.open(EN, None)[tab.mine], "visible") is False
    mine = visitor.upload(name=NASTY)
    listed = tab.open(EN, visitor.token)
    assert prop(listed[tab.mine], "choices") == [(f"{NASTY} · 6 rows · 2 labels", mine)]
    waiting, shown = tab.show(EN, visitor.token, mine)
    assert "Reading" in waiting[tab.overview]
    check_html(shown[tab.overview])
    assert prop(shown[tab.delete], "visible") is True

    asked = tab.ask(EN, visitor.token, mine)
    check_html(asked[tab.question])
    assert "&lt;img" in asked[tab.question] and prop(asked[tab.sure], "visible") is True
    assert len(context.store.datasets(visitor.owner)) == 1
    assert prop(tab.spare()[tab.sure], "visible") is False

    gone = tab.remove(EN, visitor.token, mine, mine)
    check_html(gone[tab.overview])
    assert context.store.datasets(visitor.owner) == []
    assert prop(gone[context.panel.task], "value") == "support"  # the task was the one deleted
    assert "已不存在" in tab.remove(ZH, visitor.token, mine, "support")[tab.problem]
    with pytest.raises(PromptClfError):
        context.store.dataset(mine, visitor.owner)


def test_a_stranger_neither_sees_nor_deletes_data(tab: DataDesk, context: Context, visitor: Visitor) -> None:
    mine = visitor.upload(name="secret")
    stranger = Visitor(context.store)
    assert "secret" not in str(prop(tab.open(EN, stranger.token)[tab.mine], "choices"))
    for chosen in (mine, None, "../secret", 7):
        for updates in tab.show(EN, stranger.token, chosen):  # type: ignore[arg-type]
            assert "secret" not in str(updates[tab.overview]).replace("../secret", "")
        assert prop(tab.ask(EN, stranger.token, chosen)[tab.sure], "visible") is False  # type: ignore[arg-type]
        assert "gone already" in tab.remove(EN, stranger.token, chosen, "support")[tab.problem]  # type: ignore[arg-type]
    assert len(context.store.datasets(visitor.owner)) == 1


def test_hard_labels_and_texts_come_back_as_they_were(
    tab: DataDesk, context: Context, visitor: Visitor, tmp_path: Path
) -> None:
    labels = ["None", "01", "1e3", "True", "=1+1", "<script>", "ярлык", "标签"]
    texts = [
        "line\nbreak",
        "tab\there",
        'quote " and , comma',
        NASTY,
        "=cmd()",
        "\u202eright to left",
        "é",
        "x" * 5000,
    ]
    rows = [
        {"text": f"{text} {n}", "label": label}
        for n in range(5)
        for text, label in zip(texts, labels, strict=True)
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    read = tab.read(EN, visitor.token, put(tmp_path, content, "hard.jsonl"))
    kept = tab.keep(EN, visitor.token, *shape(tab, read))
    assert kept[tab.problem] == ""
    data: Dataset = context.store.dataset(context.store.datasets(visitor.owner)[0].id, visitor.owner)
    found = sorted((row.text, row.label) for part in data.splits.values() for row in part)
    assert found == sorted((row["text"], row["label"]) for row in rows)
