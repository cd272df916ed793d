"""The named endpoints: /classify and /compare."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypedDict, cast

import gradio as gr

from promptclf.errors import PromptClfError
from promptclf.ui.service import Service


class Prediction(TypedDict):
    """The label of a text, every label's probability, and how it came about."""

    label: str
    probabilities: dict[str, float]
    mode: str
    milliseconds: float
    truncated: bool
    model: dict[str, str]


class Comparison(TypedDict):
    """What each mode says, why a mode says nothing, and whether they agree."""

    predictions: dict[str, Prediction]
    unavailable: dict[str, str]
    agreement: str


def add_endpoints(service: Service) -> None:
    """Add the endpoints to the Blocks under construction. gradio checks no types here; the service does."""

    def classify(
        text: str, mode: str = "lora", task: str = "support", labels: list[str] | None = None
    ) -> Prediction:
        """Classify a text: mode is zero-shot, few-shot or lora; labels of your own replace the task's."""
        with _told():
            return cast(Any, service.classify(text, mode, task, labels).to_dict())

    def compare(text: str, task: str = "support", labels: list[str] | None = None) -> Comparison:
        """Classify a text in all three modes and say whether they agree."""
        with _told():
            return cast(Any, service.compare(text, task, labels))

    gr.api(classify, api_name="classify")
    gr.api(compare, api_name="compare")


@contextmanager
def _told() -> Iterator[None]:
    """Errors meant for the user reach the caller; all others stay hidden behind a general message."""
    try:
        yield
    except PromptClfError as error:
        raise gr.Error(str(error), print_exception=False) from error
