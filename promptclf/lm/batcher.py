"""Answering together what is asked at the same time.

A model reads sixteen short texts in a third to two thirds of the time that it needs for them one by one.
One thread works, callers get futures. What comes while it is idle is answered at once, and what comes
while it is busy is gathered into the batches that follow: no timer is needed, and nobody waits for company.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from promptclf.errors import PromptClfError

Work = Callable[[list[str]], Sequence[Any]]

TEXTS, SIZE = 16, 4096  # of one batch: later comers wait no longer than these take
WAITING = 256


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    key: Hashable
    text: str
    size: int
    work: Work
    answer: Future[Any] = field(default_factory=Future)


class Batcher:
    """Gathers texts into batches, with users taking turns; for use by many threads.

    Parameters
    ----------
    texts, size
        How much a batch holds at most, in texts and in the sum of their sizes. A larger one is a batch of
        its own.
    waiting
        How many texts may wait.
    """

    def __init__(self, texts: int = TEXTS, size: int = SIZE, waiting: int = WAITING) -> None:
        self.texts, self.size, self.waiting = texts, size, waiting
        self._lines: OrderedDict[str, list[_Asked]] = OrderedDict()  # of each user; whose turn it is first
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, text: str, work: Work, *, key: Hashable, user: str = "", extra: int = 0) -> Future[Any]:
        """Have a text answered; a future that is cancelled before its turn costs nothing.

        Parameters
        ----------
        work
            Answers texts, in their order. It is called from one thread only. If it fails, the error
            reaches those alone whose text it also fails on without the others.
        key
            Texts of equal keys may be answered together, by the `work` of any of them.
        user
            Who asks: one who asks much gets no more turns than one who asks little.
        extra
            How many characters are read for this text besides it, such as of examples.

        Raises
        ------
        PromptClfError
            If too many texts are waiting, or the batcher is closed.
        """
        asked = _Asked(key, text, len(text) + extra, work)
        with self._changed:
            if self._closed:
                raise PromptClfError("the app is closing; try again later")
            if sum(map(len, self._lines.values())) >= self.waiting:
                raise PromptClfError("the queue is full; try again in a while")
            self._lines.setdefault(user, []).append(asked)
            if self._thread is None:
                # Always the same thread: each one that computes gets threads of its own from OpenMP.
                self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
                self._thread.start()
            self._changed.notify()
        return asked.answer

    def close(self) -> None:
        """Refuse what is waiting and what comes; the batch under way is still answered."""
        with self._changed:
            self._closed = True
            left = [asked for line in self._lines.values() for asked in line]
            self._lines.clear()
            self._changed.notify()
        for asked in left:
            if asked.answer.set_running_or_notify_cancel():
                asked.answer.set_exception(PromptClfError("the app is closing; try again later"))

    def _run(self) -> None:
        while batch := self._next():
            _answer(batch)
            del batch  # nothing is held on to while it waits

    def _next(self) -> list[_Asked]:
        """The next batch as soon as there is one; empty once the batcher is closed."""
        with self._changed:
            while not self._closed:
                batch = [asked for asked in self._take() if asked.answer.set_running_or_notify_cancel()]
                if batch:
                    return batch
                if not self._lines:
                    self._changed.wait()
            return []

    def _take(self) -> list[_Asked]:
        """What the user has waited for longest whose turn it is, and one text after the other like it."""
        if not self._lines:
            return []
        turns = list(self._lines)
        key, batch, room = self._lines[turns[0]][0].key, list[_Asked](), self.size
        while turns and len(batch) < self.texts:
            user = turns.pop(0)
            like = (asked for asked in self._lines[user] if asked.key == key)
            asked = next(like, None)
            if asked is None or (batch and asked.size > room):
                continue
            room -= asked.size
            batch.append(asked)
            self._lines[user].remove(asked)
            self._lines.move_to_end(user)
            turns.append(user)
        for user in [user for user, line in self._lines.items() if not line]:
            del self._lines[user]
        return batch


def _answer(batch: list[_Asked]) -> None:
    """Answer a batch; where it fails, its halves, so that only who causes an error gets it."""
    try:
        answers = list(batch[0].work([asked.text for asked in batch]))
        if len(answers) != len(batch):
            raise ValueError(f"expected {len(batch)} answers, got {len(answers)}")
    except BaseException as error:  # whatever it is, who asked must hear of it
        if len(batch) == 1:
            batch[0].answer.set_exception(error)
        else:
            half = len(batch) // 2
            _answer(batch[:half])
            _answer(batch[half:])
        return
    for asked, answer in zip(batch, answers, strict=True):
        asked.answer.set_result(answer)
