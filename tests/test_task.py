"""Task, Example and Prediction: strict on what comes in, stable on what goes out."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptclf.errors import PromptClfError, TaskError
from promptclf.task import MAX_LABELS, PACKAGED_TASKS, Example, Prediction, Task, packaged_tasks

FULL: dict[str, Any] = {
    "name": "mood",
    "labels": ["happy", "sad"],
    "instruction": "What is the mood?",
    "descriptions": {"sad": "low spirits"},
    "verbalisers": {"happy": "good"},
    "template": "sentiment",
}


def test_a_full_task() -> None:
    task = Task.from_dict(FULL)
    assert task.labels == ("happy", "sad")
    assert [task.verbaliser(label) for label in task.labels] == ["good", "sad"]
    assert task.to_dict() == FULL
    assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task


def test_a_task_is_frozen_copied_and_pickled() -> None:
    task = Task.from_dict(FULL)
    with pytest.raises(FrozenInstanceError):
        task.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        task.verbalisers["sad"] = "bad"  # type: ignore[index]
    assert copy.deepcopy(task) is task
    assert pickle.loads(pickle.dumps(task)) == task


def test_the_fingerprint_follows_the_content() -> None:
    task = Task.from_dict(FULL)
    assert task.fingerprint == Task.from_dict(dict(reversed(FULL.items()))).fingerprint
    changes: list[dict[str, Any]] = [
        {"name": "x"},
        {"labels": ["sad", "happy"]},
        {"instruction": ""},
        {"descriptions": {}},
        {"verbalisers": {}},
        {"template": None},
    ]
    prints = {Task.from_dict({**FULL, **change}).fingerprint for change in changes}
    assert len(prints | {task.fingerprint}) == 7


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "no 'labels'"),
        (["one"], "expected 2 to 500 labels, got 1"),
        ([str(n) for n in range(MAX_LABELS + 1)], "expected 2 to 500 labels, got 501"),
        (["a", ""], "no 'labels'|got an empty label"),
        (["a", "  "], "got an empty label"),
        (["a", "a"], "'a' and 'a' are the same label"),
        (["Spam", "spam "], "'spam ' and 'Spam' are the same label"),
        (["caf\u00e9", "cafe\u0301"], "are the same label"),
        (["a", "b\nc"], "holds a control character"),
        (["a", "x" * 101], "at most 100 characters, .* has 101"),
        (["a", True], r"expected text, got True \(bool\); put it in quotes"),
        (["a", 1], r"expected text, got 1 \(int\)"),
        (["a", None], "expected text, got None"),
        ("ab", "expected a list, got str"),
        ({"a": 1}, "expected a list, got dict"),
    ],
)
def test_bad_labels_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Task.from_dict({"name": "t", "labels": labels})


@pytest.mark.parametrize(
    "labels", [["01", "1"], ["None", "NA"], ["a", "ab"], ["🙂", "<script>"], ["正面", "负面"]]
)
def test_odd_labels_are_kept(labels: list[str]) -> None:
    assert Task("t", tuple(labels)).labels == tuple(labels)
    assert len(Task("t", tuple(str(n) for n in range(MAX_LABELS))).labels) == MAX_LABELS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": ["a"]}, "unknown key 'label' in the task; known keys: name, labels, instruction"),
        ({"name": None}, "no 'name'; required: name, labels"),
        ({"descriptions": {"glad": "?"}}, "descriptions: 'glad' is not one of the labels"),
        ({"verbalisers": {"glad": "?"}}, "verbalisers: 'glad' is not one of the labels"),
        ({"verbalisers": {"sad": " "}}, "expected one text for the label 'sad'"),
        ({"verbalisers": {"sad": 1}}, "expected one text for the label 'sad', got 1"),
        ({"verbalisers": {"sad": "happy"}}, "'happy' stands for two labels"),
        ({"verbalisers": {"sad": "x", "happy": "x"}}, "'x' stands for two labels"),
    ],
)
def test_bad_values_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Task.from_dict({"name": "mood", "labels": ["happy", "sad"], **change})


def test_a_single_string_is_no_list_of_labels() -> None:
    with pytest.raises(TaskError, match="got the single string 'ab'"):
        Task("t", "ab")  # type: ignore[arg-type]


def test_tasks_are_loaded_from_files_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mood" / "task.yaml"
    path.parent.mkdir()
    path.write_text("name: mood\nlabels: [happy, 'no']\ninstruction: 心情？\n", encoding="utf-8")
    task = Task("mood", ("happy", "no"), "心情？")
    assert Task.load(path) == Task.load(str(path)) == task
    monkeypatch.setattr("promptclf.task.PACKAGED_TASKS", tmp_path)
    assert packaged_tasks() == ["mood"]
    assert Task.load("mood") == task
    with pytest.raises(TaskError, match=r"no task 'mod': expected a YAML file or one of \['mood'\]"):
        Task.load("mod")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: [", "not valid YAML"),
        (b"caf\xe9: 1", "not valid YAML"),
        (b"", "expected keys and values, got NoneType"),
        (b"- a", "expected keys and values, got list"),
        (b"name: t\nlabels: [yes, no]", r"got True \(bool\); put it in quotes"),
        (b"!!python/object/apply:os.system ['true']", "not valid YAML"),
        (b"name: t\nlabels: [a, b]\n1: x", "unknown key 1"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_bytes(content)
    with pytest.raises(TaskError, match=message) as caught:
        Task.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert isinstance(caught.value, PromptClfError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "path", sorted(PACKAGED_TASKS.glob("*/task.yaml")), ids=lambda path: path.parent.name
)
def test_every_packaged_task_is_valid(path: Path) -> None:
    task = Task.load(path.parent.name)
    assert task.name == path.parent.name
    assert task.instruction


@given(
    st.text(max_size=20),
    st.text(max_size=20),
    st.none() | st.text(max_size=20),
    st.dictionaries(st.text(), st.text()),
)
def test_examples_round_trip(text: str, label: str, pair: str | None, meta: dict[str, str]) -> None:
    example = Example(text, label, pair, meta)
    assert Example(**example.to_dict()) == example


def test_predictions_rank_their_probabilities() -> None:
    prediction = Prediction("hi", "b", {"a": 0.2, "b": 0.7, "c": 0.1})
    assert list(prediction.to_dict()["probabilities"]) == ["b", "a", "c"]
    assert prediction.to_dict() == {
        "text": "hi",
        "label": "b",
        "probabilities": {"b": 0.7, "a": 0.2, "c": 0.1},
        "truncated": False,
    }
