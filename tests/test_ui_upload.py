"""From an uploaded file to a dataset, without the page: content, columns, labels, drafts."""

from __future__ import annotations

import gzip
import time
from pathlib import Path
from typing import Any

import pytest

from promptclf.errors import DataError, TaskError
from promptclf.schema import MAX_ROWS
from promptclf.task import Example
from promptclf.ui.core import upload
from promptclf.ui.core.upload import (
    Draft,
    Drafts,
    build_dataset,
    guess_columns,
    label_lines,
    read_examples,
    read_labels,
    read_upload,
)
from tab_context import CSV, put

# ---- reading a file ------------------------------------------------------------------------------


def test_a_file_is_read_by_its_content(tmp_path: Path) -> None:
    for name, content in {
        "a.csv": CSV,
        "b.jsonl": '{"message": "a red thing", "colour": "red"}\n',
        "wrong.csv": '\ufeff {"message": "a red thing", "colour": "red"}\n',
        "tabs.tsv": CSV.replace(",", "\t"),
    }.items():
        draft = read_upload(Path(put(tmp_path, content, name)), name)
        assert draft.name == name.split(".")[0]
        assert "colour" in draft.table.columns
        assert draft.table.source == name
    utf16 = CSV.encode("utf-16")
    assert len(read_upload(Path(put(tmp_path, utf16)), "x.csv").table.rows) == 30


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(CSV.encode()), "got gzip"),
        (b"PK\x03\x04" + b"0" * 100, "got zip"),
        (b"PAR1" + b"0" * 100, "got parquet"),
        (b"text,label\n\xff\xfe\xfd,x\n", "UTF-8"),
        (b"text,label\na,b,c\n", "expected 2 fields"),
        (b'{"text": "a"\n', "JSON"),
        (b'text,label\n"a,b\n', "double quotes"),
        (b"text,label\n", "no data"),
        (b"", "no data"),
        (b"text,text\na,b\n", "more than once"),
    ],
)
def test_what_is_no_table_is_refused_under_the_visitors_name(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = Path(put(tmp_path, content))
    with pytest.raises(DataError) as refused:
        read_upload(path, "my file.csv")
    assert said in str(refused.value)
    assert "my file.csv" in str(refused.value)
    assert str(tmp_path) not in str(refused.value) and "upload.csv" not in str(refused.value)


def test_large_files_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(path: Path) -> Any:
        raise AssertionError("read")

    monkeypatch.setattr(upload, "read_table", never)
    rows = "".join(f"text {n},a\n" for n in range(MAX_ROWS + 1))
    lines = "".join('{"t": 1}\n' for _ in range(MAX_ROWS + 1))
    start = time.perf_counter()
    for content in ("text,label\n" + rows, "text;label\n" + rows, lines):
        with pytest.raises(DataError, match="at most 100,000 rows"):
            read_upload(Path(put(tmp_path, content)), "x.csv")
    assert time.perf_counter() - start < 20
    monkeypatch.setattr(upload, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="at most 25 MiB"):
        read_upload(Path(put(tmp_path, CSV)), "x.csv")


def test_line_breaks_in_quotes_are_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "MAX_ROWS", 10)
    content = "text,label\n" + "".join(f'"one\ntwo\nthree {n}",a\n' for n in range(10))
    assert len(read_upload(Path(put(tmp_path, content)), "x.csv").table.rows) == 10
    with pytest.raises(DataError, match="at most 10 rows"):
        read_upload(Path(put(tmp_path, content + "a,b\n")), "x.csv")


def test_columns_are_guessed() -> None:
    assert guess_columns(["id", "Message", "emotion"]) == {"text": "Message", "label": "emotion"}
    assert guess_columns(["标题", "类别"]) == {"text": "标题", "label": "类别"}
    assert guess_columns(["sentence1", "sentence2", "label"]) == {"text": "sentence1", "label": "label"}
    assert guess_columns(["a", "b", "label"]) == {"label": "label"}
    assert guess_columns(["a", "label"]) == {"text": "a", "label": "label"}
    assert guess_columns(["a", "b"]) == {}


def test_only_the_chosen_columns_are_kept(tmp_path: Path) -> None:
    draft = read_upload(Path(put(tmp_path, CSV)), "x.csv")
    rows = read_examples(draft, {"text": "message", "label": "colour"})
    assert rows[1] == Example("a blue thing 1", "blue")
    with pytest.raises(DataError, match=r"^label: "):
        read_examples(draft, {"text": "message"})
    with pytest.raises(DataError, match="got the same"):
        read_examples(draft, {"text": "message", "label": "message"})


# ---- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "names", "descriptions"),
    [
        ("a\nb", {"a": "a", "b": "b"}, {}),
        ("b\n\n  a  ", {"b": "b", "a": "a"}, {}),
        ("a -> x: what\nb→y：说明", {"a": "x", "b": "y"}, {"x": "what", "y": "说明"}),
        ("a: one: two\nb", {"a": "a", "b": "b"}, {"a": "one: two"}),
        ("a -> both\nb -> both", {"a": "both", "b": "both"}, {}),
        ("a ->\nb", {"a": "a", "b": "b"}, {}),
        ("a\nb\nnew: not in the data", {"a": "a", "b": "b", "new": "new"}, {"new": "not in the data"}),
    ],
)
def test_lines_name_labels(lines: str, names: dict[str, str], descriptions: dict[str, str]) -> None:
    assert read_labels(lines, ["a", "b"]) == (names, descriptions)


@pytest.mark.parametrize(
    "labels",
    [
        ["DESC", "DESC:manner"],
        ["a -> b", "a"],
        ["A", "AB"],
        ["好：坏", "好"],
        [" lead", "trail "],
        ["None", "01", "1e3"],
    ],
)
def test_labels_of_the_data_are_found_whatever_signs_they_hold(labels: list[str]) -> None:
    lines = label_lines([Example("x", label) for label in labels])
    names, descriptions = read_labels(lines, labels)
    assert names == {label: label.strip() for label in labels} and descriptions == {}
    renamed = "\n".join(f"{label.strip()} -> new {n}: why" for n, label in enumerate(labels))
    assert read_labels(renamed, labels)[0] == {label: f"new {n}" for n, label in enumerate(labels)}


def test_wrong_lines_are_told() -> None:
    with pytest.raises(TaskError, match="'b' is missing"):
        read_labels("a", ["a", "b"])
    with pytest.raises(TaskError, match="'a' twice"):
        read_labels("a\na -> b", ["a", "b"])
    with pytest.raises(TaskError, match="at most 100"):
        read_labels("\n".join(map(str, range(101))), [])


def test_a_dataset_is_built_with_its_labels_merged_and_split() -> None:
    rows = [Example(f"text {n}", "abc"[n % 3]) for n in range(30)]
    data = build_dataset(
        "My\tdata", rows, "b -> x: the x\na -> x\nc", instruction=" Decide \n now. ", template="completion"
    )
    assert (data.name, data.task.labels, data.task.instruction) == ("My data", ("x", "c"), "Decide now.")
    assert data.task.descriptions == {"x": "the x"}
    assert [len(part) for part in data.splits.values()] == [18, 6, 6]
    assert sum(row.label == "x" for part in data.splits.values() for row in part) == 20
    assert data.validation_from_source is False
    with pytest.raises(DataError, match=r"^name: "):
        build_dataset(" \n", rows, "a\nb\nc")
    with pytest.raises(DataError, match=r"^instruction: "):
        build_dataset("x", rows, "a\nb\nc", instruction="x" * 501)
    with pytest.raises(DataError, match="at least 2 rows of every class"):
        build_dataset("x", [*rows, Example("one", "d")], "a\nb\nc\nd")


# ---- drafts --------------------------------------------------------------------------------------


def test_a_draft_is_its_owners(tmp_path: Path) -> None:
    drafts = Drafts()
    draft = read_upload(Path(put(tmp_path, CSV)), "x.csv")
    drafts.put("me", draft)
    assert drafts.get("me", draft.id) is draft
    newer = Draft("f" * 16, "y", draft.table, {})
    for owner, draft_id in (("you", draft.id), ("me", newer.id)):
        with pytest.raises(DataError, match="upload it again"):
            drafts.get(owner, draft_id)
    drafts.put("me", newer)
    with pytest.raises(DataError, match="upload it again"):
        drafts.get("me", draft.id)
    for n in range(upload.KEPT):
        drafts.put(f"owner {n}", draft)
    with pytest.raises(DataError, match="upload it again"):
        drafts.get("me", newer.id)  # the oldest go
    drafts.drop("owner 1")
    with pytest.raises(DataError, match="upload it again"):
        drafts.get("owner 1", draft.id)
