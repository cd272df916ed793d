"""The schema: what is refused and how that is said, and that Python, CLI and endpoints agree on it."""

from __future__ import annotations

import json
import uuid
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from promptclf import schema
from promptclf.cli import app
from promptclf.errors import DataError, PromptClfError
from promptclf.evaluation.report import Report, build_report, score_predictions
from promptclf.modes import MODES
from promptclf.schema import MAX_CHARS, ClassifyRequest, FeedbackRequest, JobRequest, TrainRequest, parse
from promptclf.settings import TrainConfig
from promptclf.task import Prediction, packaged_tasks

TEXT = "text: expected text of 1 to 20,000 characters"
LABELS = "labels: expected a list of 2 to 100 labels, each of 1 to 100 characters"
KEY = uuid.uuid4().hex
TOKEN = "t" * 32
JOB = "0123456789abcdef"
FEEDBACK = {
    "text": "my parcel",
    "task": "support",
    "mode": "lora",
    "predicted": "a",
    "label": "b",
    "key": KEY,
}


# ---- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "wrong", "message"),
    [
        (ClassifyRequest, {"text": ""}, f"{TEXT}, got none"),
        (ClassifyRequest, {"text": " \n\t"}, f"{TEXT}, got none"),
        (ClassifyRequest, {"text": None}, f"{TEXT}, got none"),
        (ClassifyRequest, {"text": 7}, f"{TEXT}, got 7"),
        (ClassifyRequest, {"text": ["a"]}, f"{TEXT}, got ['a']"),
        (
            ClassifyRequest,
            {"text": "x" * 20_001},
            f"{TEXT}, got 20,001 characters",
        ),
        (
            ClassifyRequest,
            {"text": "half \ud83d of it"},
            f"{TEXT}, got half a character; remove it",
        ),
        (ClassifyRequest, {"mode": "magic"}, "mode: expected one of zero-shot, few-shot, lora, got 'magic'"),
        (
            ClassifyRequest,
            {"mode": ["lora"]},
            "mode: expected one of zero-shot, few-shot, lora, got ['lora']",
        ),
        (
            ClassifyRequest,
            {"task": "../support"},
            "task: expected the name of a packaged task or the id of a data set of yours, got '../support'",
        ),
        (
            ClassifyRequest,
            {"task": "support\n"},
            "task: expected the name of a packaged task or the id of a data set of yours, got 'support\\n'",
        ),
        (
            ClassifyRequest,
            {"labels": "refund"},
            f"{LABELS}, got 'refund'",
        ),
        (
            ClassifyRequest,
            {"labels": ["one"]},
            f"{LABELS}, got 1 of them",
        ),
        (
            ClassifyRequest,
            {"labels": [f"label {n}" for n in range(101)]},
            f"{LABELS}, got 101 of them",
        ),
        (
            ClassifyRequest,
            {"labels": ["one", None]},
            f"{LABELS}, got none",
        ),
        (
            ClassifyRequest,
            {"labels": ["a", "b" * 101]},
            f"{LABELS}, got 101 characters",
        ),
        (
            ClassifyRequest,
            {"labels": ["a", "\udc00"]},
            f"{LABELS}, got half a character; remove it",
        ),
        (
            ClassifyRequest,
            {"labels": ["same", " Same "]},
            "labels: 'Same' and 'same' are the same label; keep one",
        ),
        (
            ClassifyRequest,
            {"labels": ["a", "b\x00"]},
            "labels: 'b\\x00' holds a control character; remove it",
        ),
        (
            ClassifyRequest,
            {"adapter": "../../etc"},
            "adapter: expected the id of a finished training of yours, got '../../etc'",
        ),
        (
            ClassifyRequest,
            {"token": "short"},
            "token: expected the owner token that came with your first request, got 'short'",
        ),
        (TrainRequest, {"epochs": 6}, "epochs: expected a whole number from 1 to 5, got 6"),
        (TrainRequest, {"epochs": True}, "epochs: expected a whole number from 1 to 5, got True"),
        (TrainRequest, {"epochs": 1.5}, "epochs: expected a whole number from 1 to 5, got 1.5"),
        (
            TrainRequest,
            {"learning_rate": float("nan")},
            "learning_rate: expected a number above 0 and up to 0.1, got nan",
        ),
        (
            TrainRequest,
            {"learning_rate": 0},
            "learning_rate: expected a number above 0 and up to 0.1, got 0",
        ),
        (TrainRequest, {"rows": 10**6}, "rows: expected a whole number from 2 to 100,000, got 1000000"),
        (
            FeedbackRequest,
            {"key": "1"},
            "key: expected a random UUID (version 4) of 32 hexadecimal digits, got '1'",
        ),
        (FeedbackRequest, {"label": " "}, "label: expected the label that is right, got none"),
        (JobRequest, {"job": "x"}, "job: expected the id of a job, as it was given to you, got 'x'"),
        (JobRequest, {"after": -1}, "after: expected a whole number from 0, got -1"),
        (
            TrainRequest,
            {"optimizer": "sgd"},
            "optimizer: expected one of task, rows, epochs, learning_rate, rank, batch_size, seed, token;"
            " leave it out",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(model: Any, wrong: dict[str, Any], message: str) -> None:
    right = {
        ClassifyRequest: {"text": "my parcel"},
        FeedbackRequest: FEEDBACK,
        JobRequest: {"job": JOB, "token": TOKEN},
    }
    with pytest.raises(DataError) as caught:
        parse(model, **{**right.get(model, {}), **wrong})
    assert str(caught.value) == message


def test_what_is_missing_is_named() -> None:
    with pytest.raises(DataError, match=r"^text: expected text of 1 to 20,000 characters, got none$"):
        parse(ClassifyRequest)


def test_what_is_right_comes_through_as_it_is() -> None:
    request = parse(ClassifyRequest, text=" my parcel ", labels=[" refund", "other"], token=TOKEN)
    assert (request.text, request.labels, request.mode) == (" my parcel ", ["refund", "other"], "lora")
    assert parse(ClassifyRequest, text="包" * MAX_CHARS).text == "包" * MAX_CHARS
    assert parse(FeedbackRequest, **FEEDBACK).key == KEY
    with pytest.raises(ValidationError, match="frozen"):
        request.text = "another"  # type: ignore[misc]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)
REQUESTS = [value for name, value in vars(schema).items() if name.endswith("Request") and name != "Request"]


@given(st.data(), st.sampled_from(REQUESTS))
def test_any_json_is_taken_or_refused_by_field(data: st.DataObject, model: Any) -> None:
    field = data.draw(st.sampled_from(sorted(model.model_fields)))
    right = {**FEEDBACK, "job": JOB, "token": TOKEN}
    values = {name: right[name] for name in model.model_fields if name in right}
    try:
        parse(model, **{**values, field: data.draw(JSON)})
    except PromptClfError as error:
        message = str(error)
        assert message.startswith(f"{field}: ")
        assert len(message) < 300
        assert "\n" not in message
        message.encode()


def test_every_field_says_what_it_expects() -> None:
    for model in REQUESTS:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"


def test_modes_tasks_and_defaults_are_those_of_the_package() -> None:
    assert get_args(schema.Mode) == tuple(MODES)
    for task in packaged_tasks():
        assert parse(ClassifyRequest, text="a", task=task).task == task
    request, config = parse(TrainRequest), TrainConfig()
    for name in ("epochs", "learning_rate", "rank", "batch_size"):
        assert getattr(request, name) == getattr(config, name)


# ---- results -------------------------------------------------------------------------------------


def test_every_outermost_result_has_the_version() -> None:
    results = [value for name, value in vars(schema).items() if name.endswith(("Result", "Event"))]
    assert len(results) == 8
    for result in results:
        assert get_type_hints(result)["schema_version"] is int, result


def test_python_and_endpoints_share_the_shape_of_an_answer() -> None:
    prediction = Prediction("my parcel", "b", {"a": 0.1, "b": 0.9}, truncated=True).to_dict()
    assert list(prediction["probabilities"]) == ["b", "a"]
    shared = set(get_type_hints(schema.Outcome))
    assert shared == set(prediction) - {"text"}
    assert shared <= set(get_type_hints(schema.ClassifyResult))


def test_a_report_is_read_with_and_without_the_version() -> None:
    result = score_predictions("one", ["a", "b"], [[0.9, 0.1], [0.2, 0.8]], ["a", "b"], mode="lora")
    report = build_report([result], ["a", "b"], ["a", "b"], task="t", dataset={}, seed=0)
    values = json.loads(report.to_json())
    assert Report.from_dict({"schema_version": schema.SCHEMA_VERSION, **values}) == Report.from_dict(values)


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("tasks", "tasks"),
        ("tasks list", "tasks"),
        ("tasks show support", "labels"),
        ("prompt list", "templates"),
        ("doctor support", "rows"),
    ],
)
def test_what_the_command_line_prints_has_the_version(command: str, key: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--json"])
    found = json.loads(result.stdout)
    assert next(iter(found)) == "schema_version"
    assert found["schema_version"] == schema.SCHEMA_VERSION
    assert found[key]
