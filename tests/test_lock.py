"""The lock around a model."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress

import pytest

from promptclf.lm.lock import FairLock

SECONDS = 10


def waiting(lock: FairLock, count: int) -> None:
    """Return once so many threads wait."""
    end = time.monotonic() + SECONDS
    while len(lock._turns) < count:
        assert time.monotonic() < end
        time.sleep(0.001)


def test_one_thread_at_a_time() -> None:
    lock, inside, most = FairLock(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with lock:
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert most == 1 and inside == 0 and not any(thread.is_alive() for thread in threads)
    assert lock.acquire(blocking=False)


def test_it_is_given_in_the_order_of_asking() -> None:
    lock, order = FairLock(), list[int]()

    def take(number: int) -> None:
        with lock:
            order.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(5)]
    with lock:
        for number, thread in enumerate(threads, 1):
            thread.start()
            waiting(lock, number)
    for thread in threads:
        thread.join(SECONDS)
    assert order == [0, 1, 2, 3, 4]


def test_who_takes_it_again_and_again_lets_others_in() -> None:
    lock, began, done = FairLock(), threading.Event(), threading.Event()
    rounds = 0

    def greedy() -> None:
        nonlocal rounds
        while not done.is_set():
            with lock:
                began.set()
                rounds += 1
                time.sleep(0.001)

    thread = threading.Thread(target=greedy)
    thread.start()
    assert began.wait(SECONDS)
    before = rounds
    with lock:
        after = rounds
    done.set()
    thread.join(SECONDS)
    assert after - before <= 2  # the one that was under way, and the one asked for before


def test_a_thread_may_take_it_twice() -> None:
    lock, taken = FairLock(), list[bool]()

    def ask() -> None:
        taken.append(lock.acquire(blocking=False))

    def elsewhere() -> bool:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(SECONDS)
        return taken.pop()

    with lock:
        with lock:
            assert not elsewhere()
        assert not elsewhere()
    assert elsewhere()


def test_only_the_holder_can_release() -> None:
    lock = FairLock()
    with pytest.raises(RuntimeError, match="another thread"):
        lock.release()
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join(SECONDS)
    with pytest.raises(RuntimeError, match="another thread"):
        lock.release()


def test_who_is_interrupted_while_waiting_leaves_the_line() -> None:
    lock, go = FairLock(), threading.Event()

    def hold() -> None:
        with lock:
            go.wait(SECONDS)

    holder = threading.Thread(target=hold)
    holder.start()
    while not lock._taken:
        time.sleep(0.001)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with suppress(KeyboardInterrupt), lock:
            raise AssertionError("it was held")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not lock._turns
    go.set()
    holder.join(SECONDS)
    assert lock.acquire(blocking=False)
