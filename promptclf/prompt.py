"""Prompt templates: a task, a text and examples become what the model sees.

A template is data: a YAML file with strict keys and literal placeholders. It is filled once, by
replacement, so nothing a user writes is ever expanded or executed. The same template serves all
modes: few-shot adds examples as further turns made from the same lines, and LoRA trains on them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from promptclf.errors import TemplateError
from promptclf.task import Example, Task

DEFAULT_TEMPLATE, PAIR_TEMPLATE = "completion", "pair"
MAX_TEMPLATE_BYTES = 64 * 1024
PLACEHOLDERS = {
    "system": ("labels", "instruction", "descriptions"),
    "user": ("text", "pair", "labels", "instruction", "descriptions"),
    "cue": (),
    "answer": ("label",),
}
REQUIRED = {"user": "text", "answer": "label"}
DEFAULT_INSTRUCTION = {"en": "Choose the label that fits the text best.", "zh": "请选择最合适的标签。"}
_NAME = re.compile(r"\{([a-z_]+)\}")
_MEANT = re.compile(r"\{\s*\w+\s*\}")  # as a placeholder, spelt right or not


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: who speaks ("system", "user" or "assistant") and what."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model sees before it answers.

    A completion prompt is the text of its only message followed by the cue. A chat prompt is a list
    of turns in the model's own chat template, after which the model's turn begins with the cue.
    """

    messages: tuple[Message, ...]
    cue: str
    chat: bool

    @property
    def text(self) -> str:
        """The prompt as plain text (without a chat model's control tokens)."""
        return "".join(message.content for message in self.messages) + self.cue


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """How a text is presented.

    Parameters
    ----------
    name, description, language
        For people; `language` ("en", "zh") also chooses the default instruction.
    chat
        Use the model's chat template (turns) instead of one plain text.
    system
        Shown once at the start. Placeholders: ``{instruction}``, ``{labels}``, ``{descriptions}``.
    user
        Shows one text. ``{text}`` is required; ``{pair}`` and those of `system` are allowed.
    cue
        What the answer follows, on a line of its own, such as ``Label:``.
    answer
        The answer; ``{label}`` becomes the label's words. A completion answer usually begins with
        a space, because that is how words are tokenised inside a line.
    separator
        Between examples in a completion.

    Raises
    ------
    TemplateError
        If a placeholder is missing or unknown.
    """

    name: str
    user: str
    description: str = ""
    language: str = "en"
    chat: bool = False
    system: str = ""
    cue: str = ""
    answer: str = " {label}"
    separator: str = "\n\n"

    def __post_init__(self) -> None:
        for key, allowed in PLACEHOLDERS.items():
            found = [place[1:-1] for place in _MEANT.findall(getattr(self, key))]
            if unknown := [name for name in found if name not in allowed]:
                raise TemplateError(
                    f"template {self.name!r}, {key}: unknown placeholder {{{unknown[0]}}}; "
                    f"allowed: {', '.join('{' + name + '}' for name in allowed) or 'none'}"
                )
            if key in REQUIRED and REQUIRED[key] not in found:
                raise TemplateError(f"template {self.name!r}, {key}: missing {{{REQUIRED[key]}}}")

    @classmethod
    def load(cls, name_or_path: str | Path) -> PromptTemplate:
        """Read a template from YAML: a packaged template's name or the path of a file.

        Raises
        ------
        TemplateError
            If neither exists, or the content is not a valid template.
        """
        path = Path(name_or_path)
        if not path.is_file():
            path = prompts_folder() / f"{name_or_path}.yaml"
        if not path.is_file() or path.parent.name.startswith("."):
            raise TemplateError(
                f"no prompt template {str(name_or_path)!r}: expected a YAML file or one of "
                f"{', '.join(packaged_templates())}"
            )
        if path.stat().st_size > MAX_TEMPLATE_BYTES:
            raise TemplateError(f"{path}: expected at most {MAX_TEMPLATE_BYTES} bytes")
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise TemplateError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict):
            raise TemplateError(f"{path}: expected keys and values, got {type(values).__name__}")
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PromptTemplate:
        """Build a template from a mapping, refusing unknown keys and values of another type."""
        types = {f.name: bool if f.name == "chat" else str for f in fields(cls)}
        if unknown := [key for key in values if key not in types]:
            raise TemplateError(f"unknown key {unknown[0]!r}; known keys: {', '.join(types)}")
        if missing := [key for key in ("name", "user") if key not in values]:
            raise TemplateError(f"missing key {missing[0]!r}; required: name, user")
        for key, value in values.items():
            if not isinstance(value, types[key]):
                raise TemplateError(f"{key}: expected {types[key].__name__}, got {type(value).__name__}")
        return cls(**dict(values))

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary that `from_dict` reads back."""
        return asdict(self)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the content, as 64 hexadecimal digits; it goes into every result."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def render(
        self, task: Task, text: str, pair: str | None = None, examples: Sequence[Example] = ()
    ) -> Prompt:
        """Present `text` (and `pair`) after `examples`, the nearest or last example last."""
        words = self._task_words(task)
        system = _fill(self.system, words)
        users = [self._user(words, example.text, example.pair) for example in examples]
        answers = [self.answer_for(task, example.label) for example in examples]
        last = self._user(words, text, pair)
        if self.chat:
            turns = [Message("system", system)] if system else []
            for user, answer in zip(users, answers, strict=True):
                turns += [Message("user", user), Message("assistant", self.cue + answer)]
            return Prompt((*turns, Message("user", last)), self.cue, chat=True)
        blocks = [system] if system else []
        blocks += [f"{user}\n{self.cue}{answer}" for user, answer in zip(users, answers, strict=True)]
        body = "".join(block + self.separator for block in blocks) + f"{last}\n"
        return Prompt((Message("user", body),), self.cue, chat=False)

    def answer_for(self, task: Task, label: str) -> str:
        """The words that follow the cue when `label` is the answer."""
        return _fill(self.answer, {"label": task.verbaliser(label)})

    def _task_words(self, task: Task) -> dict[str, str]:
        described = [
            f"- {task.verbaliser(label)}: {task.descriptions[label]}"
            if label in task.descriptions
            else f"- {task.verbaliser(label)}"
            for label in task.labels
        ]
        comma = "、" if self.language == "zh" else ", "
        default = DEFAULT_INSTRUCTION.get(self.language, DEFAULT_INSTRUCTION["en"])
        return {
            "labels": comma.join(task.verbaliser(label) for label in task.labels),
            "instruction": task.instruction or default,
            "descriptions": "\n".join(described),
        }

    def _user(self, words: Mapping[str, str], text: str, pair: str | None) -> str:
        wants_pair = "pair" in _NAME.findall(self.user)
        if wants_pair != (pair is not None):
            raise TemplateError(
                f"template {self.name!r} shows a {{pair}}, but the text has none; give (text, pair)"
                if wants_pair
                else f"template {self.name!r} has no {{pair}} for the second text; choose one that has it, "
                f"such as {PAIR_TEMPLATE!r}, or leave the second text out"
            )
        return _fill(self.user, {**words, "text": text, "pair": pair or ""})


def default_template(task: Task, pairs: bool = False) -> str:
    """The template for a task's texts, or pairs of them, where none is chosen."""
    return task.template or (PAIR_TEMPLATE if pairs else DEFAULT_TEMPLATE)


def _fill(pattern: str, values: Mapping[str, str]) -> str:
    """Replace each placeholder once; what is filled in is not looked at again."""
    return _NAME.sub(lambda match: values.get(match[1], match[0]), pattern)


def prompts_folder() -> Path:
    """Where the packaged templates lie: inside an installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "prompts"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "prompts"


def packaged_templates() -> list[str]:
    """Names of the templates that come with the package, sorted."""
    return sorted(path.stem for path in prompts_folder().glob("*.yaml"))
