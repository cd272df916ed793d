"""What goes into the app and what comes out of it: one versioned schema for Python, CLI and endpoints.

Requests are pydantic models, strict and frozen; `parse` checks one and says in one line what is wrong.
Results are typed dictionaries; the outermost one carries ``schema_version``. What every answer holds is
`promptclf.task.Outcome`, which `Prediction.to_dict` has too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from promptclf.errors import DataError, TaskError
from promptclf.task import MAX_LABEL_CHARS, Outcome, Task

SCHEMA_VERSION = 1
MAX_CHARS = 20_000
MAX_LABELS = 100
MAX_ROWS = 100_000
MAX_FILE_ROWS = 10_000  # texts of a file to classify: it holds the model meanwhile
MAX_EPOCHS = 5

Mode = Literal["zero-shot", "few-shot", "lora"]  # the keys of `promptclf.MODES`
M = TypeVar("M", bound=BaseModel)

# ---- fields: the description is what an error says was expected -------------------------------------

_TEXT = f"text of 1 to {MAX_CHARS:,} characters"
Text = Annotated[str, Field(min_length=1, max_length=MAX_CHARS, description=_TEXT)]
TaskName = Annotated[
    str,
    Field(
        pattern="^[a-z0-9][a-z0-9_-]{0,63}$",
        description="the name of a packaged task or the id of a data set of yours",
    ),
]
OneMode = Annotated[Mode, Field(description="one of zero-shot, few-shot, lora")]
Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_LABEL_CHARS)]
Labels = Annotated[
    list[Label] | None,
    Field(
        min_length=2,
        max_length=MAX_LABELS,
        description=f"a list of 2 to {MAX_LABELS} labels, each of 1 to {MAX_LABEL_CHARS} characters",
    ),
]
JobId = Annotated[str, Field(pattern="^[0-9a-f]{16}$", description="the id of a job, as it was given to you")]
TOKEN = "^[A-Za-z0-9_-]{32}$"
Token = Annotated[
    str | None,
    Field(pattern=TOKEN, description="the owner token that came with your first request"),
]
Adapter = Annotated[
    str | None,
    Field(pattern="^[0-9a-f]{16}$", description="the id of a finished training of yours"),
]
Rows = Annotated[int | None, Field(ge=2, le=MAX_ROWS, description=f"a whole number from 2 to {MAX_ROWS:,}")]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1, description="a whole number from 0 to 4,294,967,295")]


class Request(BaseModel):
    """What all requests share: values of exactly these types, no others, and none can be changed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @field_validator("text", check_fields=False)
    @classmethod
    def _not_blank(cls, text: str) -> str:
        if not text.strip():
            raise ValueError(f"expected {_TEXT}, got none")
        return text

    @field_validator("labels", check_fields=False)
    @classmethod
    def _fit_for_a_task(cls, labels: list[str] | None) -> list[str] | None:
        try:
            Task("own", tuple(labels or ("yes", "no")))
        except TaskError as error:
            raise ValueError(str(error)) from error
        return labels


class CompareRequest(Request):
    """A text to classify in all modes; own `labels` replace those of the task."""

    text: Text
    task: TaskName = "support"
    labels: Labels = None
    adapter: Adapter = None
    token: Token = None


class ClassifyRequest(CompareRequest):
    """A text to classify in one mode."""

    mode: OneMode = "lora"


class FileRequest(Request):
    """How to classify the texts of a file, and what to write."""

    mode: OneMode = "lora"
    task: TaskName = "support"
    labels: Labels = None
    adapter: Adapter = None
    column: str | None = Field(None, min_length=1, max_length=200, description="the name of a column")
    output: Literal["csv", "jsonl"] = Field("csv", description="csv or jsonl")
    token: Token = None


class EvaluateRequest(Request):
    """A comparison of modes on the test split of a task or data set."""

    task: TaskName = "support"
    modes: list[Mode] = Field(
        ["zero-shot", "few-shot", "lora"],
        min_length=1,
        max_length=3,
        description="a list of one or more of zero-shot, few-shot, lora",
    )
    rows: Rows = None
    test_rows: Rows = None
    seed: Seed = 0
    token: Token = None


class TrainRequest(Request):
    """A LoRA training; see `promptclf.TrainConfig` for the settings."""

    task: TaskName = "support"
    rows: Rows = None
    epochs: int = Field(3, ge=1, le=MAX_EPOCHS, description=f"a whole number from 1 to {MAX_EPOCHS}")
    learning_rate: float = Field(
        1e-3, gt=0, le=0.1, allow_inf_nan=False, description="a number above 0 and up to 0.1"
    )
    rank: int = Field(8, ge=1, le=64, description="a whole number from 1 to 64")
    batch_size: int = Field(8, ge=1, le=64, description="a whole number from 1 to 64")
    seed: Seed = 0
    token: Token = None


class FeedbackRequest(Request):
    """A correction: what a mode said about a text, and what would have been right.

    `key` makes it safe to send the same correction again: it is kept once.
    """

    text: Text
    task: TaskName
    mode: OneMode
    predicted: Label = Field(description="the label that was predicted")
    label: Label = Field(description="the label that is right")
    key: str = Field(
        pattern="^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$",
        description="a random UUID (version 4) of 32 hexadecimal digits",
    )
    labels: Labels = None
    token: Token = None


class JobRequest(Request):
    """A job of the owner of a token; of its events, those after number `after`."""

    job: JobId
    token: str = Field(pattern=TOKEN, description="the owner token that came with the job")
    after: int = Field(0, ge=0, description="a whole number from 0")


class TasksRequest(Request):
    """Packaged tasks, and with a token the owner's data sets."""

    token: Token = None


def parse(model: type[M], /, **values: Any) -> M:
    """Check values that came from outside.

    Raises
    ------
    DataError
        "field: expected …, got …" about the first value that is wrong.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise DataError(_explained(model, error.errors(include_url=False)[0])) from None


def _explained(model: type[BaseModel], problem: Any) -> str:
    field, kind = str(problem["loc"][0]), problem["type"]
    if kind == "extra_forbidden":
        return f"{field[:60]}: expected one of {', '.join(model.model_fields)}; leave it out"
    if kind == "value_error":
        return f"{field}: {str(problem['ctx']['error']).removeprefix(f'{field}: ')}"
    return f"{field}: expected {model.model_fields[field].description}, got {_got(problem)}"


def _got(problem: Any) -> str:
    """What came, in a few words."""
    kind, value = problem["type"], problem["input"]
    if kind == "missing" or value is None or (isinstance(value, str) and not value.strip()):
        return "none"
    if kind == "string_unicode":  # JSON can carry half of a surrogate pair
        return "half a character; remove it"
    if isinstance(value, str) and kind.startswith("string_too"):
        return f"{len(value):,} characters"
    if isinstance(value, list) and kind.startswith("too_"):
        return f"{len(value):,} of them"
    return f"{value!r:.60}".encode("utf-8", "replace").decode()


# ---- results ---------------------------------------------------------------------------------------


class Answer(Outcome):
    """What one mode says about a text: how long it took, and with which model."""

    mode: str
    milliseconds: float
    model: dict[str, str]


class ClassifyResult(Answer):
    """The label of a text, every label's probability, and how it came about."""

    schema_version: int


class CompareResult(TypedDict):
    """What each mode says, why a mode says nothing, and whether they agree."""

    schema_version: int
    predictions: dict[str, Answer]
    unavailable: dict[str, str]
    agreement: str


class FileDict(TypedDict):
    """A file on the server: where it can be fetched, and its name."""

    path: str
    url: str | None
    orig_name: str | None
    size: int | None
    meta: dict[str, str]


class ClassifyFileResult(TypedDict):
    """How many texts are done, how often each label was given, and at the end the file."""

    schema_version: int
    done: int
    rows: int
    labels: dict[str, int]
    truncated: int
    file: FileDict | None


class TaskInfo(TypedDict):
    """What can be asked for: `task` is what to pass on, `own` whether it is a data set of the caller."""

    task: str
    name: str
    own: bool
    labels: list[str]
    instruction: str
    rows: dict[str, int]
    modes: list[str]


class TasksResult(TypedDict):
    """All tasks that the caller can use."""

    schema_version: int
    tasks: list[TaskInfo]


class TrainResult(TypedDict):
    """A training that was begun; keep both: the id names it, the token proves that it is yours."""

    schema_version: int
    job: str
    token: str
    state: str


class JobResult(TypedDict):
    """A job's state and what happened; pass `next` as ``after`` to get only what is new.

    Times are ISO 8601 in UTC. The state is queued, running, done, failed, cancelled or interrupted; one
    that is `cancelling` was told to stop and still runs.
    """

    schema_version: int
    job: str
    kind: str
    state: str
    cancelling: bool
    request: dict[str, Any]
    created: str
    started: str | None
    ended: str | None
    events: list[dict[str, Any]]
    next: int
    result: dict[str, Any] | None
    error: str | None


class EvaluateEvent(TypedDict):
    """One step of an evaluation; the last one has the report and the event "report"."""

    schema_version: int
    event: str
    job: str
    token: str
    progress: dict[str, Any]
    report: dict[str, Any] | None


class FeedbackResult(TypedDict):
    """Feedback that is stored, under which key and for which owner."""

    schema_version: int
    saved: bool
    key: str
    token: str
