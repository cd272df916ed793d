"""What is being decided: a task's labels and words, and the examples and predictions about it."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict

import yaml

from promptclf.errors import TaskError

MAX_LABELS = 500
MAX_LABEL_CHARS = 100
PACKAGED_TASKS = Path(__file__).parent / "tasks"


@dataclass(frozen=True, slots=True)
class Task:
    """The labels to choose from and the words that present them to a model.

    Parameters
    ----------
    name
        A short identifier, such as ``"support"``.
    labels
        2 to 500 distinct labels, in the order in which prompts list them.
    instruction
        One sentence that says what to decide; templates show it as ``{instruction}``.
    descriptions
        Optional: label -> what the label means.
    verbalisers
        Optional: label -> the words that are scored for it. Default: the label itself.
    template
        Optional: name of the preferred prompt template.

    Raises
    ------
    TaskError
        If labels repeat (compared after NFC, strip and casefold), are empty, too long, too few or
        too many, hold control characters, or if a mapping names an unknown label.
    """

    name: str
    labels: tuple[str, ...]
    instruction: str = ""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    verbalisers: Mapping[str, str] = field(default_factory=dict)
    template: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.labels, str):
            raise TaskError(f"labels: expected a list of labels, got the single string {self.labels!r}")
        object.__setattr__(self, "labels", tuple(self.labels))
        _check_labels(self.labels)
        for name in ("name", "instruction", "template"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (name == "template" and value is None):
                raise TaskError(f"{name}: expected text, got {value!r}; put it in quotes")
        for name in ("descriptions", "verbalisers"):
            mapping = getattr(self, name) or {}
            if not isinstance(mapping, Mapping):
                raise TaskError(f"{name}: expected labels with a text for each, got {mapping!r}")
            mapping = dict(mapping)
            unknown = [key for key in mapping if key not in self.labels]
            if unknown:
                raise TaskError(
                    f"{name}: {unknown[0]!r} is not one of the labels; expected some of {list(self.labels)}"
                )
            object.__setattr__(self, name, MappingProxyType(mapping))
        for label, description in self.descriptions.items():
            if not isinstance(description, str):
                raise TaskError(f"descriptions: expected text for the label {label!r}, got {description!r}")
        for label, words in self.verbalisers.items():
            if not isinstance(words, str) or not words.strip():
                raise TaskError(f"verbalisers: expected one text for the label {label!r}, got {words!r}")
        spoken = [self.verbaliser(label) for label in self.labels]
        if len(set(spoken)) < len(spoken):
            twice = next(word for word in spoken if spoken.count(word) > 1)
            raise TaskError(f"verbalisers: {twice!r} stands for two labels; give each label its own words")

    def __reduce__(self) -> tuple[Any, ...]:  # MappingProxyType cannot be pickled
        return (Task.from_dict, (self.to_dict(),))

    def __deepcopy__(self, memo: dict[int, Any]) -> Task:
        return self  # frozen all the way down

    def verbaliser(self, label: str) -> str:
        """The words scored for `label`."""
        return self.verbalisers.get(label, label)

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary that `from_dict` reads back."""
        return {
            "name": self.name,
            "labels": list(self.labels),
            "instruction": self.instruction,
            "descriptions": dict(self.descriptions),
            "verbalisers": dict(self.verbalisers),
            "template": self.template,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Task:
        """Build a task from a mapping, refusing unknown keys.

        Raises
        ------
        TaskError
            If a key is unknown or a required one is missing.
        """
        known = [f.name for f in fields(cls)]
        if unknown := [key for key in values if key not in known]:
            raise TaskError(f"unknown key {unknown[0]!r} in the task; known keys: {', '.join(known)}")
        if missing := [key for key in ("name", "labels") if not values.get(key)]:
            raise TaskError(f"the task has no {missing[0]!r}; required: name, labels")
        labels = values["labels"]
        if not isinstance(labels, Sequence) or isinstance(labels, str):
            raise TaskError(f"labels: expected a list, got {type(labels).__name__}")
        if odd := [label for label in labels if not isinstance(label, str)]:
            raise TaskError(
                f"labels: expected text, got {odd[0]!r} ({type(odd[0]).__name__}); put it in quotes"
            )
        return cls(**dict(values))

    @classmethod
    def load(cls, name_or_path: str | Path) -> Task:
        """Read a task from YAML: a packaged task's name or the path of a file.

        Raises
        ------
        TaskError
            If neither exists, or the content is not a valid task.
        """
        path = Path(name_or_path)
        try:
            if not path.is_file() and str(name_or_path) in packaged_tasks():
                path = PACKAGED_TASKS / str(name_or_path) / "task.yaml"
            found = path.is_file()
        except OSError:  # a name too long to be one
            found = False
        if not found:
            raise TaskError(
                f"no task {str(name_or_path)!r}: expected a YAML file or one of {packaged_tasks()}"
            )
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
            raise TaskError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict):
            raise TaskError(f"{path}: expected keys and values, got {type(values).__name__}")
        try:
            return cls.from_dict(values)
        except TaskError as error:
            raise TaskError(f"{path}: {error}") from error

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the content, as 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


def _check_labels(labels: tuple[str, ...]) -> None:
    if not 2 <= len(labels) <= MAX_LABELS:
        raise TaskError(f"expected 2 to {MAX_LABELS} labels, got {len(labels)}")
    seen: dict[str, str] = {}
    for label in labels:
        if not isinstance(label, str):
            raise TaskError(f"labels: expected text, got {label!r} ({type(label).__name__})")
        if not label.strip():
            raise TaskError("labels: expected text, got an empty label")
        if len(label) > MAX_LABEL_CHARS:
            raise TaskError(f"labels: at most {MAX_LABEL_CHARS} characters, {label[:30]!r}… has {len(label)}")
        if any(unicodedata.category(char) == "Cc" for char in label):
            raise TaskError(f"labels: {label!r} holds a control character; remove it")
        key = unicodedata.normalize("NFC", label).strip().casefold()
        if key in seen:
            raise TaskError(f"labels: {label!r} and {seen[key]!r} are the same label; keep one")
        seen[key] = label


def packaged_tasks() -> list[str]:
    """Names of the tasks that come with the package, sorted."""
    return sorted(path.parent.name for path in PACKAGED_TASKS.glob("*/task.yaml"))


def packaged_classifier(task: str | None, mode: str) -> Path | None:
    """The folder of the fitted classifier that comes with a packaged task, if there is one."""
    folder = PACKAGED_TASKS / str(task) / ("adapter" if mode == "lora" else mode)
    return folder if task in packaged_tasks() and folder.is_dir() else None


@dataclass(frozen=True, slots=True)
class Example:
    """A text with its label.

    Parameters
    ----------
    text
        The text to classify.
    label
        Its label.
    pair
        The second text, where a task is about two (a premise and a hypothesis, say).
    meta
        Anything else that belongs to the row, as text: a date, a topic, an author.
    """

    text: str
    label: str
    pair: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary; ``Example(**d)`` reads it back."""
        return asdict(self)


class Outcome(TypedDict):
    """What every answer says, whether it comes from Python, the command line or an endpoint."""

    label: str
    probabilities: dict[str, float]
    truncated: bool


class PredictionDict(Outcome):
    """A prediction as plain values."""

    text: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """A label for a text, with a probability for every label of the task (they sum to 1)."""

    text: str
    label: str
    probabilities: Mapping[str, float]
    truncated: bool = False

    def to_dict(self) -> PredictionDict:
        """A plain dictionary with the probabilities in descending order."""
        ranked = sorted(self.probabilities.items(), key=lambda item: -item[1])
        return {
            "text": self.text,
            "label": self.label,
            "probabilities": dict(ranked),
            "truncated": self.truncated,
        }
