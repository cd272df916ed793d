"""What the app answers: a label with its reasons, and whether the modes agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from promptclf.modes import MODES
from promptclf.task import Example
from promptclf.ui.words import Language, say


@dataclass(frozen=True, slots=True)
class Answer:
    """What one mode says about a text.

    Parameters
    ----------
    label
        The most probable label.
    probabilities
        Every label's probability, in descending order.
    mode
        "zero-shot", "few-shot" or "lora".
    milliseconds
        How long the model took, without the time to get ready: for all texts that were answered together.
    truncated
        Whether only the beginning of the text was read.
    model
        Where the base model comes from and how it is used.
    """

    label: str
    probabilities: Mapping[str, float]
    mode: str
    milliseconds: float
    truncated: bool
    model: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Explanation:
    """How an answer came about.

    Parameters
    ----------
    label
        The label that is explained.
    prompt
        Exactly what the model saw, control tokens included.
    tokens
        How many tokens that is.
    examples
        The labelled examples in the prompt, in its order.
    weights
        The text in pieces, each with how much it speaks for the label, in nats.
    """

    label: str
    prompt: str
    tokens: int
    examples: tuple[Example, ...]
    weights: tuple[tuple[str, float], ...]


def agreement(labels: Mapping[str, str], language: Language = "en") -> str:
    """One sentence on whether the modes agree.

    Parameters
    ----------
    labels
        Mode -> the label it gave.
    language
        Of the sentence.
    """
    by_label: dict[str, list[str]] = {}
    for mode in MODES:
        if mode in labels:
            by_label.setdefault(labels[mode], []).append(say(language, f"mode_{mode}"))
    groups = sorted(by_label.items(), key=lambda group: -len(group[1]))
    if len(labels) < 2:
        return say(language, "agree_only", mode=groups[0][1][0]) if labels else say(language, "agree_none")
    many = "three" if len(labels) == 3 else "two"
    if len(groups) == 1:
        return say(language, f"agree_all_{many}", label=groups[0][0])
    if len(groups) == len(labels):
        return say(language, f"agree_differ_{many}")
    (label, most), (odd, [other]) = groups
    return say(language, "agree_most", first=most[0], second=most[1], label=label, other=other, odd=odd)
