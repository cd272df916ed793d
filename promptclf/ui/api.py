"""The named endpoints: /classify and /compare.

Annotations are evaluated here: gradio describes an endpoint's result only if its type is no string.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict, cast

import gradio as gr
from gradio.events import api

from promptclf.errors import PromptClfError
from promptclf.ui.service import Service


class ClassifyResult(TypedDict):
    """The label of a text, every label's probability, and how it came about."""

    label: str
    probabilities: dict[str, float]
    mode: str
    milliseconds: float
    truncated: bool
    model: dict[str, str]


class CompareResult(TypedDict):
    """What each mode says, why a mode says nothing, and whether they agree."""

    predictions: dict[str, ClassifyResult]
    unavailable: dict[str, str]
    agreement: str


def add_endpoints(service: Service) -> None:
    """Add the endpoints to the Blocks under construction. gradio checks no types here; the service does."""

    def classify(
        text: str, mode: str = "lora", task: str = "support", labels: list[str] | None = None
    ) -> ClassifyResult:
        """Classify a text: mode is zero-shot, few-shot or lora; labels of your own replace the task's."""
        with _told():
            return cast(ClassifyResult, service.classify(text, mode, task, labels).to_dict())

    def compare(text: str, task: str = "support", labels: list[str] | None = None) -> CompareResult:
        """Classify a text in all three modes and say whether they agree."""
        with _told():
            return cast(CompareResult, service.compare(text, task, labels))

    api(classify, api_name="classify")
    api(compare, api_name="compare")


@contextmanager
def _told() -> Iterator[None]:
    """Errors meant for the user reach the caller; all others stay hidden behind a general message."""
    try:
        yield
    except PromptClfError as error:
        raise gr.Error(str(error), print_exception=False) from error
