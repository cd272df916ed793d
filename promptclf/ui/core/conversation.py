"""A visitor's conversation on the Classify tab: what was asked, and what came of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from promptclf.ui.core.answer import Answer, Explanation
from promptclf.ui.core.service import Question

KEPT = 50
SHOWN_CHARS = 2_000


@dataclass
class Turn:
    """A text and what came of it.

    Attributes
    ----------
    number
        Counts the visitor's texts; the page names a turn by it.
    text, mode, task
        What was asked, as shown, in which mode and about which task.
    question
        The checked text with its task; None if it was refused.
    answer, note
        The answer, or why there is none; both None: it is still to come.
    opened
        Which part of the card is open: "", "why" or "wrong".
    why
        The explanation, or why there is none; None: it is still to come.
    key, saved
        What feedback is stored under, and the label that was stored as right.
    trouble
        Why the feedback was not stored.
    """

    number: int
    text: str
    mode: str
    task: str = "own"
    question: Question | None = None
    answer: Answer | None = None
    note: str | None = None
    opened: str = ""
    why: Explanation | str | None = None
    key: str = ""
    saved: str | None = None
    trouble: str = ""

    @property
    def waits(self) -> bool:
        """Whether an answer is still to come."""
        return self.answer is None and self.note is None


@dataclass
class History:
    """One visitor's turns, changed in place: a returned copy would undo what came meanwhile."""

    turns: deque[Turn] = field(default_factory=lambda: deque(maxlen=KEPT))
    waiting: deque[Turn] = field(default_factory=lambda: deque(maxlen=KEPT))
    count: int = 0

    def add(self, text: str, mode: str) -> Turn:
        """A new turn at the end."""
        self.count += 1
        turn = Turn(self.count, shown(text), mode)
        self.turns.append(turn)
        return turn

    def find(self, number: object) -> Turn | None:
        """The turn of that number."""
        return next((turn for turn in self.turns if turn.number == number), None)

    def stop(self, note: str) -> None:
        """Give up on what has no answer yet."""
        self.waiting.clear()
        for turn in self.turns:
            if turn.waits:
                turn.note = note

    def clear(self) -> None:
        """Forget all turns."""
        self.stop("")
        self.turns.clear()


def shown(text: str) -> str:
    """A text that can be shown: not too long, and without halves of characters."""
    cut = text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"
    return cut.encode("utf-8", "replace").decode()
