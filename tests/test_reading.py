"""Reading files: nothing is coerced, nothing is lost, every fault is named."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from promptclf.data.dataset import read_rows
from promptclf.data.reading import choose_columns, read_table
from promptclf.errors import DataError
from promptclf.task import Example

HARD_LABELS = ["None", "NA", "null", "nan", "01", "1", "True", "1e3", "-inf", "#N/A", "2024-01-02", "«é»"]
# Anything that UTF-8 can write, except NUL.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=60)


def write_csv(
    path: Path, rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")
) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_labels_that_look_like_something_else_survive(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    if suffix == ".csv":
        write_csv(path, [(label, label) for label in HARD_LABELS])
    else:
        path.write_text("\n".join(json.dumps({"text": label, "label": label}) for label in HARD_LABELS))
    assert [(row.text, row.label) for row in read_rows(path)] == [(label, label) for label in HARD_LABELS]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS.filter(str.strip), TEXTS), min_size=1, max_size=8))
def test_csv_round_trip(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    path = write_csv(tmp_path / "data.csv", rows, ("text", "label", "note"))
    assert [(row.text, row.label, row.meta["note"]) for row in read_rows(path)] == rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS.filter(str.strip)), min_size=1, max_size=8), st.booleans())
def test_jsonl_round_trip(tmp_path: Path, rows: list[tuple[str, str]], ascii_only: bool) -> None:
    path = tmp_path / "data.jsonl"
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=ascii_only) for text, label in rows]
    path.write_bytes("\n".join(lines).encode())
    assert [(row.text, row.label) for row in read_rows(path)] == rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(st.sampled_from([".csv", ".jsonl", ".tsv", ".ndjson", ".xlsx", ""]), st.binary(max_size=200))
@example(".csv", b'text,label\n"a')
@example(".csv", b"text,label\r\na\rb,c\r\n")
@example(".csv", b'text,label\n"a"b,c\n')
@example(".csv", b"\xff\xfet\x00")
@example(".csv", b"\xef\xbb\xbf")
@example(".jsonl", b'{"text": "\\ud800", "label": "a"}')
@example(".jsonl", b'{"text": NaN, "label": 1e999999}')
@example(".jsonl", b'{"text": ' + b"9" * 5000 + b', "label": "a"}')
@example(".jsonl", b"[" * 100_000)
@example(".jsonl", b'{"a":' * 100_000)
def test_any_bytes_give_rows_or_a_data_error(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert read_rows(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(
    st.lists(
        st.lists(st.sampled_from(["a", "", '"', ",", "\r", "\n", "é", "text", "label", "\x00"])), max_size=20
    )
)
def test_any_csv_like_file_gives_rows_or_a_data_error(tmp_path: Path, parts: list[list[str]]) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"text,label\n" + "".join("".join(part) for part in parts).encode())
    with contextlib.suppress(DataError):
        read_rows(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text,label\nx,y\nx,y,z\n", r"a\.csv, row 2 \(line 3\): expected 2 fields .* got 3"),
        ("a.csv", b"text,label\nx\n", r"row 1 \(line 2\): expected 2 fields .* got 1"),
        (
            "a.csv",
            b"text,label\nx, \n",
            r"row 1 \(line 2\): expected a label in the column 'label', got nothing",
        ),
        ("a.csv", b"text,label,text\nx,y,z\n", "got 'text' more than once"),
        ("a.csv", b"text,label\n", "expected rows, got none"),
        ("a.csv", b"", "expected rows, got none"),
        ("a.csv", b'text,label\nx,y\n"x,y\n', r"row 2 .*expected valid CSV"),
        ("a.csv", b"text,label\nx,y\ncaf\xe9,y\n", r"line 3: expected UTF-8 text, got the byte 0xe9"),
        ("a.csv", b"\xff\xfet\x00e", "expected UTF-16 text"),
        ("a.csv", b"\xff\xfe\x00\x00t\x00\x00\x00", "got UTF-32"),
        ("a.csv", b"text,label\nx,y\nx\x00,y\n", "line 3: expected text, got a NUL"),
        ("a.csv", b"text,label\n" + b"x" * 200_000 + b",y\n", r"row 1 .*field larger than field limit"),
        (
            "a.csv",
            b"foo,bar\nx,y\n",
            r"expected a text column such as 'text', .* got \['foo', 'bar'\]; name it",
        ),
        ("a.csv", b"\x1f\x8b\x08\x00rest", "got gzip content"),
        ("a.csv", b"PK\x03\x04rest", "got zip or xlsx content"),
        ("a.csv", b"PAR1rest", "got parquet content"),
        ("a.xlsx", b"PK\x03\x04rest", "got zip or xlsx content"),
        ("a.json", b"[]", r"expected a file ending in \.csv, .* got '\.json'"),
        (
            "a.jsonl",
            b'{"text": "x", "label": "y"}\n[1]',
            r"row 2 \(line 2\): expected a JSON object, got a list",
        ),
        ("a.jsonl", b'{"text": "x", "label": "y"}\n{"text": "x"', r"row 2 \(line 2\): .* got an error"),
        ("a.jsonl", b'{"text": "x", "label": null}', "expected a label in the column 'label', got nothing"),
        ("a.jsonl", b'{"text": "x", "label": "y"}\n{"label": "y"}', r"row 2 .* expected a text"),
        ("a.jsonl", b'{"text": ["x"], "label": "y"}', "row 1 .* got a list or object"),
        ("a.jsonl", b'{"text": "x", "text": "y"}', "the key 'text' occurs more than once"),
        ("a.jsonl", b'{"text": "\\ud800", "label": "y"}', "half of a surrogate pair"),
        ("a.jsonl", b'{"text": "a\\u0000", "label": "y"}', "an escaped NUL"),
        ("a.jsonl", b'{"text": "' + b"x" * 200_000 + b'"}', r"row 1 .*at most 131,072 characters"),
        ("a.jsonl", b"[" * 100_000, "nested too deeply"),
    ],
)
def test_malformed_files_are_named_with_row_and_reason(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got no file"):
        read_rows(tmp_path / "none.csv")
    with pytest.raises(DataError, match="got a folder"):
        read_rows(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path / ("x" * 300 + ".csv"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text("text,label\nnaïve 文本,é\n", encoding=encoding)
    assert read_rows(path) == [Example("naïve 文本", "é")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_separators_and_line_breaks_in_quotes(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(f'text{delimiter}label\r\n"one\r\ntwo ""{delimiter}"""{delimiter}x\r\n\r\n'.encode())
    assert read_rows(path) == [Example(f'one\r\ntwo "{delimiter}"', "x")]


def test_quotes_in_a_tab_file_are_characters(tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    lines = [
        "text, as it is\tlabel",
        '"Great" film\tx',
        '"half a quote\ty',
        '"whole"\tx',
        'a, b; 5" c\ty',
        'end"\tx',
    ]
    path.write_bytes("\r\n".join(lines).encode())
    found = read_rows(path, text="text, as it is")
    assert [row.text for row in found] == ['"Great" film', '"half a quote', '"whole"', 'a, b; 5" c', 'end"']
    assert [row.label for row in found] == list("xyxyx")


def test_a_tab_file_that_is_quoted_like_csv_is_read_so(tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    path.write_text('text\tlabel\n"He said ""no"""\tx\n"plain"\ty\nbare\tx\n""\ty\n')
    assert [row.text for row in read_rows(path)] == ['He said "no"', "plain", "bare", ""]


def test_a_tab_too_many_is_told(tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    path.write_text('text\tlabel\n"a\tb"\tx\n')
    with pytest.raises(DataError, match=r"row 1 \(line 2\): .*got 3; write no tab inside a text"):
        read_rows(path)


def test_a_guessed_pair_can_be_switched_off(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [("one", "two", "x")], ("premise", "hypothesis", "label"))
    assert read_rows(path) == [Example("one", "x", "two")]
    assert read_rows(path, pair="") == [Example("one", "x", meta={"hypothesis": "two"})]


def test_json_numbers_and_booleans_stay_as_written(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(
        '{"text": 1.0, "label": 1e3, "a": true, "b": 12345678901234567890, "c": null, "d": {"e": 1.50}}\n'
    )
    meta = {"a": "true", "b": "12345678901234567890", "d": '{"e": "1.50"}'}
    assert read_rows(path) == [Example("1.0", "1e3", meta=meta)]


def test_a_line_separator_inside_json_is_no_line_break(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "a\u2028b", "label": "x"}\n\n', encoding="utf-8")
    assert read_rows(path) == [Example("a\u2028b", "x")]


def test_columns_are_guessed_and_the_guess_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_csv(tmp_path / "a.csv", [("1", "hi", "greet")], ("id", "Utterance", "Intent"))
    with caplog.at_level(logging.INFO, "promptclf"):
        assert read_rows(path) == [Example("hi", "greet", meta={"id": "1"})]
    assert "text = 'Utterance' (guessed), label = 'Intent' (guessed)" in caplog.text


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (["premise", "hypothesis", "label"], {}, {"text": "premise", "label": "label", "pair": "hypothesis"}),
        (
            ["sentence1", "sentence2", "label"],
            {},
            {"text": "sentence1", "label": "label", "pair": "sentence2"},
        ),
        (["title", "text", "topic"], {}, {"text": "text", "label": "topic"}),
        (["title", "text", "topic"], {"text": "title"}, {"text": "title", "label": "topic"}),
        (["text", "label", "label_text"], {}, {"text": "text", "label": "label_text"}),
        (["feedback", "category"], {}, {"text": "feedback", "label": "category"}),
        (["文本", "标签"], {}, {"text": "文本", "label": "标签"}),
        (["text", "label"], {"labelled": False}, {"text": "text"}),
        (["text"], {}, {"text": "text"}),
    ],
)
def test_choose_columns(names: list[str], given: dict[str, str], expected: dict[str, str]) -> None:
    assert choose_columns(names, **given) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": "texts"}, r"expected a column 'texts' for the text, got .*; did you mean 'text'\?"),
        ({"text": "label", "label": "label"}, "a column of its own"),
        ({"text": "text", "label": "label", "pair": "other"}, "expected a column 'other' for the pair"),
    ],
)
def test_wrong_columns_are_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        choose_columns(["text", "label"], **given)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="expected a label column"):
        choose_columns(["text", "foo", "bar"], labelled=True)


def test_rows_may_be_unlabelled(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [("hi", "")])
    assert read_rows(path, labelled=False) == [Example("hi", "", meta={"label": ""})]
    assert read_rows(write_csv(tmp_path / "b.csv", [("hi",), ("",)], ("text",)), text="text") == [
        Example("hi", ""),
        Example("", ""),
    ]


def test_pairs_are_read(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "a.csv", [("A man sleeps.", "He is awake.", "no")], ("premise", "hypothesis", "label")
    )
    assert read_rows(path) == [Example("A man sleeps.", "no", pair="He is awake.")]


def test_a_hundred_thousand_rows_are_read_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    path.write_text("text,label\n" + "\n".join(f"the text of row {n},{n % 7}" for n in range(100_000)))
    assert len(read_table(path).rows) == 100_000
