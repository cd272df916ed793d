"""What a running app sends back."""

from __future__ import annotations

import pytest

from promptclf.errors import PromptClfError
from promptclf.wire import answer

URL = "http://127.0.0.1:7860"


def test_the_answer_comes_after_signs_of_life() -> None:
    lines = ["event: heartbeat", "data: null", "", "event: complete", 'data: [{"label": "refund: yes"}]', ""]
    assert answer(iter(lines), URL) == {"label": "refund: yes"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["event: error", 'data: {"error": "text: expected some"}'], "^text: expected some$"),
        (["event: error", 'data: "no such thing"'], "^no such thing$"),
        (["event: error", "data: null"], f"^{URL}: the app failed; its log says more$"),
        (["event: error", 'data: {"error": null}'], f"^{URL}: the app failed; its log says more$"),
        (["event: heartbeat", "data: null"], f"^{URL}: the app ended before it answered$"),
        ([], f"^{URL}: the app ended before it answered$"),
    ],
)
def test_why_there_is_none(lines: list[str], message: str) -> None:
    with pytest.raises(PromptClfError, match=message):
        answer(iter(lines), URL)
