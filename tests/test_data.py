"""Loading, splitting, subsampling and fingerprints."""

from __future__ import annotations

import csv
import json
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptclf.data.clean import TextCleaner
from promptclf.data.dataset import Dataset, load_dataset, read_rows, read_source, split_examples
from promptclf.errors import DataError, TaskError
from promptclf.task import PACKAGED_TASKS, Example, Task, packaged_tasks

SHARED = Path(__file__).parents[2] / "shared" / "data"


def write_csv(
    path: Path, rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")
) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def labelled(counts: dict[str, int], prefix: str = "text") -> list[Example]:
    return [Example(f"{prefix} {label} {n}", label) for label, count in counts.items() for n in range(count)]


def folder(path: Path, **splits: list[Example]) -> Path:
    path.mkdir(exist_ok=True)
    for name, examples in splits.items():
        write_csv(path / f"{name}.csv", [(row.text, row.label) for row in examples])
    return path


# Splitting


@settings(deadline=None)
@given(
    st.lists(st.integers(2, 40), min_size=2, max_size=12),
    st.sampled_from([(0.6, 0.2, 0.2), (0.8, 0.2), (0.5, 0.25, 0.25)]),
    st.integers(0, 5),
)
def test_splits_are_complete_stratified_and_seeded(
    counts: list[int], fractions: tuple[float, ...], seed: int
) -> None:
    examples = labelled({f"label {n}": count for n, count in enumerate(counts)})
    parts = split_examples(examples, fractions=fractions, seed=seed)
    assert sorted(row.text for part in parts for row in part) == sorted(row.text for row in examples)
    assert len({row.label for row in parts[0]}) == len(counts)
    for part, fraction in zip(parts[1:], fractions[1:], strict=True):
        assert len(part) <= max(1, round(fraction * len(examples)))
        for label, count in Counter(row.label for row in part).items():
            total = sum(row.label == label for row in examples)
            assert count <= max(1, fraction * total + 1.01 + 0.2 * len(counts))
    assert parts == split_examples(examples, fractions=fractions, seed=seed)


def test_a_split_has_the_asked_size_and_every_class() -> None:
    parts = split_examples(labelled({"a": 60, "b": 30, "c": 10}), fractions=(0.6, 0.2, 0.2), seed=0)
    assert [Counter(row.label for row in part) for part in parts] == [
        {"a": 36, "b": 18, "c": 6},
        {"a": 12, "b": 6, "c": 2},
        {"a": 12, "b": 6, "c": 2},
    ]
    other = split_examples(labelled({"a": 60, "b": 30, "c": 10}), fractions=(0.6, 0.2, 0.2), seed=1)
    assert parts != other


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abc")), min_size=4, max_size=60))
def test_copies_of_a_text_land_on_one_side(rows: list[tuple[int, str]]) -> None:
    examples = [Example(f"text {n}", label, "pair" if n % 2 else None) for n, label in rows]
    if min(Counter(e.label for e in examples).values()) < 2:
        return
    parts = split_examples(examples, fractions=(0.6, 0.2, 0.2), seed=0)
    assert sorted(e.text for part in parts for e in part) == sorted(e.text for e in examples)
    texts = [{(e.text, e.pair) for e in part} for part in parts]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]


def test_copies_do_not_empty_a_class(tmp_path: Path) -> None:
    """The only text of a small class is also a text of a large one."""
    examples = labelled({"a": 40, "b": 20}) + [Example("text a 3", "c")] * 2
    for seed in range(10):
        parts = split_examples(examples, fractions=(0.6, 0.2, 0.2), seed=seed)
        assert {e.label for e in parts[0]} == {"a", "b", "c"}


def test_a_class_with_one_row_is_refused_by_name(tmp_path: Path) -> None:
    path = folder(tmp_path / "d", train=labelled({"a": 5, "rare": 1}), test=labelled({"a": 1, "rare": 1}))
    with pytest.raises(DataError, match=r"no validation split: expected at least 2 rows .* got 1 of 'rare'"):
        load_dataset(path)
    with pytest.raises(DataError, match="add up to 1"):
        split_examples(labelled({"a": 5, "b": 5}), fractions=(0.6, 0.2), seed=0)


# Loading


def test_one_file_is_split_60_20_20(tmp_path: Path) -> None:
    examples = labelled({"no": 50, "yes": 50})
    path = write_csv(tmp_path / "mail.csv", [(row.text, row.label) for row in examples])
    dataset = load_dataset(path)
    assert [len(rows) for rows in dataset.splits.values()] == [60, 20, 20]
    assert dataset.name == "mail"
    assert dataset.task.labels == ("no", "yes")
    assert dataset.columns == {"text": "text", "label": "label"}
    assert not dataset.validation_from_source
    assert load_dataset(path) == dataset
    assert load_dataset(path, seed=1).fingerprint != dataset.fingerprint


@pytest.mark.parametrize("validation", ["dev", "validation", "valid", "val", "Validation"])
def test_given_splits_are_kept(tmp_path: Path, validation: str) -> None:
    rows = {
        "train": labelled({"a": 3, "b": 1}),
        validation: labelled({"a": 1}, "v"),
        "test": labelled({"c": 2}, "t"),
    }
    dataset = load_dataset(folder(tmp_path / "d", **rows))
    assert list(dataset.splits.values()) == [tuple(examples) for examples in rows.values()]
    assert dataset.validation_from_source
    assert dataset.task.labels == ("a", "b", "c")  # c occurs in test only and is kept


def test_only_what_is_missing_is_cut_from_train(tmp_path: Path) -> None:
    train, other = labelled({"a": 50, "b": 50}), labelled({"a": 5, "b": 5}, "other")
    cut = load_dataset(folder(tmp_path / "one", train=train, test=other))
    assert [len(rows) for rows in cut.splits.values()] == [80, 20, 10]
    assert cut.test == tuple(other)
    assert {row.text for row in cut.train + cut.validation} == {row.text for row in train}
    assert not cut.validation_from_source
    kept = load_dataset(folder(tmp_path / "two", train=train, dev=other))
    assert [len(rows) for rows in kept.splits.values()] == [80, 10, 20]
    assert kept.validation == tuple(other)
    assert kept.validation_from_source


def test_jsonl_and_other_files_in_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder(tmp_path / "d", test=labelled({"a": 2, "b": 2}), train_16shot=labelled({"z": 2}))
    lines = [json.dumps({"text": row.text, "label": row.label}) for row in labelled({"a": 9, "b": 9})]
    (path / "train.jsonl").write_text("\n".join(lines))
    (path / "README.md").write_text("about")
    with caplog.at_level(logging.INFO, "promptclf"):
        dataset = load_dataset(path)
    assert dataset.task.labels == ("a", "b")
    assert "not used" in caplog.text
    assert "train_16shot.csv" in caplog.text


def test_confusing_folders_are_refused(tmp_path: Path) -> None:
    rows = labelled({"a": 5, "b": 5})
    with pytest.raises(DataError, match=r"expected one validation split, got .*dev.csv, .*valid.csv"):
        load_dataset(folder(tmp_path / "a", train=rows, dev=rows, valid=rows))
    with pytest.raises(DataError, match=r"expected train\.csv or train\.jsonl, got"):
        load_dataset(folder(tmp_path / "b", test=rows))
    path = folder(tmp_path / "c", train=rows)
    (path / "dev.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="got parquet content"):
        load_dataset(path)
    path = folder(tmp_path / "d", train=rows)
    write_csv(path / "test.csv", [("x", "a")], ("sentence", "label"))
    with pytest.raises(DataError, match=r"test\.csv: expected a column 'text' for the text"):
        load_dataset(path)


@pytest.mark.parametrize(
    "source", ["no such data", "x" * 300, "a\x00b", "", "http://localhost/a.csv", "a.csv"]
)
def test_unknown_sources_are_refused(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError):
        load_dataset(source)


def test_the_labels_of_a_given_task_are_binding(tmp_path: Path) -> None:
    path = folder(tmp_path / "d", train=labelled({"cat": 5, "dog": 5}), test=labelled({"dog": 1, "dig": 1}))
    task = Task("pets", ("dog", "cat", "bird"))
    with pytest.raises(
        DataError, match=r"d \(test\), row 2: .* 3 labels .* 'pets', got 'dig'; did you mean 'dog'"
    ):
        load_dataset(path, task=task)
    write_csv(path / "test.csv", [("x", "cat")])
    dataset = load_dataset(path, task=task)
    assert dataset.task is task
    (tmp_path / "pets.yaml").write_text("name: pets\nlabels: [dog, cat, bird]")
    assert load_dataset(path, task=tmp_path / "pets.yaml").task == task
    with pytest.raises(TaskError, match="no task 'nothing'"):
        load_dataset(path, task="nothing")


def test_a_task_beside_the_rows_is_used(tmp_path: Path) -> None:
    path = folder(tmp_path / "d", train=labelled({"cat": 5, "dog": 5}))
    (path / "task.yaml").write_text("name: pets\nlabels: [dog, cat]\nverbalisers: {dog: puppy}")
    assert load_dataset(path).task == Task("pets", ("dog", "cat"), verbalisers={"dog": "puppy"})


def test_labels_that_make_no_task_are_a_data_error(tmp_path: Path) -> None:
    for labels in (["a"], ["a", "A"], ["a", "b\nc"], ["a", "x" * 101]):
        path = write_csv(tmp_path / "a.csv", [("text", label) for label in labels] * 5)
        with pytest.raises(DataError, match="the column 'label': "):
            load_dataset(path)


def test_packaged_tasks_load_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(
        tmp_path / "pets",
        **{name: labelled({"a": 4, "b": 4}, name) for name in ("train", "validation", "test")},
    )
    (path / "task.yaml").write_text("name: pets\nlabels: [b, a]")
    monkeypatch.setattr("promptclf.task.PACKAGED_TASKS", tmp_path)
    monkeypatch.setattr("promptclf.data.dataset.PACKAGED_TASKS", tmp_path)
    dataset = load_dataset("pets")
    assert (dataset.name, dataset.task.labels) == ("pets", ("b", "a"))
    assert dataset.validation_from_source


@pytest.mark.parametrize(
    "name", [task for task in packaged_tasks() if (PACKAGED_TASKS / task / "train.csv").exists()]
)
def test_every_packaged_task_loads(name: str) -> None:
    dataset = load_dataset(name)
    assert dataset.validation_from_source
    assert all({row.label for row in rows} == set(dataset.task.labels) for rows in dataset.splits.values())


def test_the_source_is_shown_uncut(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [("one", "only"), ("two", "only")])
    source = read_source(path)
    assert source.splits == {"train": [Example("one", "only"), Example("two", "only")]}
    assert source.columns == {"text": "text", "label": "label"}


# Dataset


def dataset(counts: dict[str, int], from_source: bool) -> Dataset:
    task = Task("t", tuple(counts))
    train, validation, test = split_examples(labelled(counts), fractions=(0.6, 0.2, 0.2), seed=0)
    return Dataset(task, train, validation, test, validation_from_source=from_source)


def test_limit_counts_the_whole_budget_where_validation_was_cut() -> None:
    data = dataset({"a": 300, "b": 150, "c": 50}, from_source=False)
    small = data.limit(100, 50)
    assert [len(rows) for rows in small.splits.values()] == [80, 20, 50]
    assert Counter(row.label for row in small.train) == {"a": 48, "b": 24, "c": 8}
    assert all(row in data.validation for row in small.validation)
    assert all(row in data.train for row in small.train)
    assert small == data.limit(100, 50)
    assert small != data.limit(100, 50, seed=1)


def test_limit_keeps_a_given_validation_split_whole() -> None:
    data = dataset({"a": 300, "b": 200}, from_source=True)
    small = data.limit(100)
    assert [len(rows) for rows in small.splits.values()] == [100, 100, 100]
    assert small.validation == data.validation
    assert small.validation_from_source


def test_limit_keeps_a_row_of_every_class_where_it_can() -> None:
    counts = {"big": 500, **{f"small {n}": 5 for n in range(9)}}
    data = dataset(counts, from_source=True)
    assert {row.label for row in data.limit(10).train} == set(counts)
    assert Counter(row.label for row in data.limit(30).train)["big"] == 21


def test_limit_with_fewer_rows_than_classes_warns(caplog: pytest.LogCaptureFixture) -> None:
    data = dataset({f"label {n}": 10 for n in range(20)}, from_source=False)
    small = data.limit(10, 3)
    assert [len(rows) for rows in small.splits.values()] == [8, 2, 3]
    assert "8 train rows leave 12 classes without one" in caplog.text


def test_limit_beyond_the_data_changes_nothing() -> None:
    data = dataset({"a": 30, "b": 20}, from_source=False)
    assert data.limit() == data.limit(10_000, 10_000) == data
    for rows, test_rows in ((1, None), (0, None), (-5, None), (None, 0)):
        with pytest.raises(DataError, match="limit: expected rows >= 2"):
            data.limit(rows, test_rows)


def test_the_fingerprint_follows_labels_rows_splits_and_order() -> None:
    task, a, b = Task("t", ("x", "y")), Example("1", "x"), Example("2", "y")
    base = Dataset(task, (a, b), (a,), (b,))
    assert base.fingerprint == Dataset(task, [a, b], [a], [b], name="other").fingerprint  # type: ignore[arg-type]
    assert len(base.fingerprint) == 64
    different = [
        Dataset(Task("t", ("y", "x")), (a, b), (a,), (b,)),
        Dataset(task, (b, a), (a,), (b,)),
        Dataset(task, (a,), (b, a), (b,)),
        Dataset(task, (a, b), (a,), (Example("2", "x"),)),
        Dataset(task, (a, b), (a,), (Example("2", "y", pair=""),)),
        Dataset(task, (a, b), (a,), (Example("2", "y", meta={"date": "today"}),)),
    ]
    assert len({base.fingerprint, *(data.fingerprint for data in different)}) == 7
    assert base.describe()["rows"] == {"train": 2, "validation": 1, "test": 1}
    assert json.loads(json.dumps(base.describe())) == base.describe()


def test_a_fingerprint_is_stable_across_versions() -> None:
    data = Dataset(Task("t", ("x", "y")), (Example("1", "x"),), (), (Example("é", "y"),))
    assert data.fingerprint == "381cb0f1e5373724aea5e4b7f6a006859b8a5c4f2dd96014a284f2b74f3b1df2"


def test_a_dataset_refuses_labels_that_its_task_does_not_have() -> None:
    with pytest.raises(DataError, match=r"data \(test\), row 1: .* got 'z'"):
        Dataset(Task("t", ("x", "y")), (), (), (Example("1", "z"),))


def test_a_dataset_can_be_cleaned() -> None:
    data = Dataset(Task("t", ("x", "y")), (Example(" a  b ", "x"),), (), (Example("A", "y", pair=" c\n"),))
    cleaned = data.clean(TextCleaner(lowercase=True))
    assert cleaned.train == (Example("a b", "x"),)
    assert cleaned.test == (Example("a", "y", pair="c"),)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the public data sets are not on this machine")
@pytest.mark.parametrize("name", ["trec", "sst2", "eprstmt", "tweet_sentiment"])
def test_real_data_is_read_like_the_csv_module_reads_it(name: str) -> None:
    for path in (SHARED / name).glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            expected = [(row["text"], row["label"]) for row in csv.DictReader(file)]
        assert [(row.text, row.label) for row in read_rows(path)] == expected
    data = load_dataset(SHARED / name).limit(200, 100)
    assert {row.label for row in data.train} == set(data.task.labels)


def test_importing_is_light() -> None:
    code = (
        "import sys, promptclf.data.dataset, promptclf.data.doctor;"
        "print([name for name in ('torch', 'transformers', 'gradio', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
