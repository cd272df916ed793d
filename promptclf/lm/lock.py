"""A lock that nobody can keep to himself."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any


class FairLock:
    """A reentrant lock that threads get in the order in which they asked for it.

    Python's own goes to whoever is quickest, which is the thread that has just let it go: long work that
    takes it again and again would keep everyone else waiting until its end.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._turns: deque[threading.Lock] = deque()  # of those who wait; each is held until it is their turn
        self._taken = False
        self._owner: int | None = None
        self._depth = 0

    def acquire(self, blocking: bool = True) -> bool:
        """Take it, or a second time, or wait; without `blocking`, return False instead of waiting."""
        me = threading.get_ident()
        if self._owner != me:
            with self._guard:
                turn = None
                if self._taken:
                    if not blocking:
                        return False
                    turn = threading.Lock()
                    turn.acquire()
                    self._turns.append(turn)
                self._taken = True
            if turn is not None:
                self._wait(turn)
            self._owner = me
        self._depth += 1
        return True

    def release(self) -> None:
        """Let it go as often as it was taken; then it is the turn of who has waited for longest.

        Raises
        ------
        RuntimeError
            If this thread does not hold it.
        """
        if self._owner != threading.get_ident():
            raise RuntimeError("cannot release a lock of another thread")
        self._depth -= 1
        if not self._depth:
            self._owner = None
            with self._guard:
                self._pass_on()

    def __enter__(self) -> FairLock:
        self.acquire()
        return self

    def __exit__(self, *error: Any) -> None:
        self.release()

    def _wait(self, turn: threading.Lock) -> None:
        try:
            turn.acquire()
        except BaseException:  # a signal's: whoever is next must not wait for this thread
            with self._guard:
                if turn in self._turns:
                    self._turns.remove(turn)
                else:
                    self._pass_on()
            raise

    def _pass_on(self) -> None:
        if self._turns:
            self._turns.popleft().release()
        else:
            self._taken = False
