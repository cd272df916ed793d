"""Texts that are asked at the same time: answered together, never mixed up, in turns, and none lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from fakes import FakeModel
from live import until
from promptclf.classifiers.selection import example_text
from promptclf.data.dataset import load_dataset
from promptclf.errors import DataError, PromptClfError
from promptclf.lm.batcher import Batcher
from promptclf.lm.model import HFModel
from promptclf.ui.core.service import Service
from visitors import SUPPORT


class Worker:
    """Work that notes its batches, can be held up, and fails on "bad"."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.free = threading.Event()
        self.free.set()

    def named(self, name: str) -> Callable[[list[str]], list[str]]:
        def work(texts: list[str]) -> list[str]:
            self.batches.append(texts)
            assert self.free.wait(20)
            if "bad" in texts:
                raise DataError(f"{name} cannot read that")
            return [f"{name}: {text}" for text in texts]

        return work


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    batcher = Batcher()
    yield batcher
    batcher.close()


@pytest.fixture
def busy(batcher: Batcher, worker: Worker) -> Callable[..., Future[Any]]:
    """Asks, after the batcher was given something to hold it up."""
    worker.free.clear()
    batcher.submit("first", worker.named("first"), key="first")
    until(lambda: worker.batches)

    def ask(text: str, key: str = "a", user: str = "") -> Future[Any]:
        return batcher.submit(text, worker.named(key), key=key, user=user)

    return ask


def answers(worker: Worker, asked: list[Future[Any]]) -> list[Any]:
    worker.free.set()
    return [future.result(20) for future in asked]


def test_one_alone_goes_at_once(batcher: Batcher, worker: Worker) -> None:
    batcher.submit("warm", worker.named("a"), key="a").result(20)
    took = []
    for _ in range(50):
        start = time.perf_counter()
        assert batcher.submit("x", worker.named("a"), key="a").result(20) == "a: x"
        took.append(time.perf_counter() - start)
    assert np.median(took) < 0.005
    assert worker.batches[1:] == [["x"]] * 50


def test_who_comes_meanwhile_is_answered_together(worker: Worker, busy: Callable[..., Future[Any]]) -> None:
    asked = [busy(f"text {i}") for i in range(10)]
    assert answers(worker, asked) == [f"a: text {i}" for i in range(10)]
    assert worker.batches == [["first"], [f"text {i}" for i in range(10)]]


def test_other_keys_are_other_batches(worker: Worker, busy: Callable[..., Future[Any]]) -> None:
    asked = [busy(f"{i}", key="ab"[i % 2]) for i in range(6)]
    assert answers(worker, asked) == [f"{'ab'[i % 2]}: {i}" for i in range(6)]
    assert worker.batches[1:] == [["0", "2", "4"], ["1", "3", "5"]]


def test_a_batch_is_bounded_by_texts_and_by_size(worker: Worker) -> None:
    batcher = Batcher(texts=3, size=100)
    worker.free.clear()
    texts = ["first", "a", "b", "c", "d", "e" * 99, "f", "g" * 500, "h"]
    asked = [batcher.submit(text, worker.named("a"), key="a") for text in texts]
    assert answers(worker, asked) == [f"a: {text}" for text in texts]
    sizes = [len(batch) for batch in worker.batches if batch != ["first"]]
    assert max(sizes) == 3
    assert ["g" * 500] in worker.batches
    assert all(len(batch) == 1 or sum(map(len, batch)) <= 100 for batch in worker.batches)
    del worker.batches[:]
    worker.free.clear()
    asked = [batcher.submit(text, worker.named("a"), key="a", extra=40) for text in ["first", *"abcd"]]
    answers(worker, asked)
    assert max(map(len, worker.batches)) == 2
    batcher.close()


def test_who_asks_little_is_not_behind_who_asks_much(
    worker: Worker, busy: Callable[..., Future[Any]]
) -> None:
    many = [busy(f"many {i}", user="many") for i in range(60)]
    other = busy("other labels", key="b", user="one")
    alike = busy("alike", user="two")
    answers(worker, [*many, other, alike])
    # The first batch begins with whose turn it is, and has something of everyone who asks alike.
    assert "alike" in worker.batches[1]
    assert worker.batches[2] == ["other labels"]
    assert worker.batches[1][0] == "many 0"


def test_users_take_turns_within_a_batch(worker: Worker, busy: Callable[..., Future[Any]]) -> None:
    asked = [busy(f"{user}{i}", user=user) for user in "xyz" for i in range(8)]
    answers(worker, asked)
    first = Counter(text[0] for text in worker.batches[1])
    assert max(first.values()) - min(first.values()) <= 1
    for user in "xyz":  # and each user's texts stay in their order
        order = [text for batch in worker.batches for text in batch if text[0] == user]
        assert order == [f"{user}{i}" for i in range(8)]


def test_an_error_is_only_told_to_who_caused_it(worker: Worker, busy: Callable[..., Future[Any]]) -> None:
    asked = [busy("bad" if i == 5 else f"{i}") for i in range(12)]
    worker.free.set()
    with pytest.raises(DataError, match=r"^a cannot read that$"):
        asked.pop(5).result(20)
    assert [future.result(20) for future in asked] == [f"a: {i}" for i in range(12) if i != 5]


def test_too_few_answers_are_an_error(batcher: Batcher) -> None:
    with pytest.raises(ValueError, match="expected 1 answers, got 0"):
        batcher.submit("x", lambda texts: [], key="a").result(20)


def test_a_full_queue_says_so_and_empties_again(worker: Worker) -> None:
    batcher = Batcher(waiting=4)
    worker.free.clear()
    held = batcher.submit("held", worker.named("a"), key="a")
    until(lambda: worker.batches)
    asked = [batcher.submit(f"{i}", worker.named("a"), key="a") for i in range(4)]
    with pytest.raises(PromptClfError, match=r"^the queue is full; try again in a while$"):
        batcher.submit("one too many", worker.named("a"), key="a")
    answers(worker, [held, *asked])
    assert batcher.submit("later", worker.named("a"), key="a").result(20) == "a: later"
    batcher.close()


def test_who_went_away_costs_nothing(worker: Worker, busy: Callable[..., Future[Any]]) -> None:
    asked = [busy(f"{i}") for i in range(4)]
    gone = busy("gone", key="b")
    assert asked[1].cancel()
    assert gone.cancel()
    last = busy("last", key="c")
    assert answers(worker, [asked[0], asked[2], asked[3], last]) == ["a: 0", "a: 2", "a: 3", "c: last"]
    assert worker.batches[1:] == [["0", "2", "3"], ["last"]]
    with pytest.raises(CancelledError):
        gone.result()


def test_closing_tells_those_who_wait(worker: Worker, batcher: Batcher) -> None:
    worker.free.clear()
    held = batcher.submit("held", worker.named("a"), key="a")
    until(lambda: worker.batches)
    waiting = batcher.submit("waiting", worker.named("a"), key="a")
    batcher.close()
    for ask in (waiting.result, lambda: batcher.submit("new", worker.named("a"), key="a")):
        with pytest.raises(PromptClfError, match=r"^the app is closing"):
            ask()
    assert answers(worker, [held]) == ["a: held"]


def test_nothing_is_lost_with_200_threads(batcher: Batcher, worker: Worker) -> None:
    def ask(i: int) -> str:
        key = "abc"[i % 3]
        text = "bad" if i % 50 == 49 else f"{i}"
        try:
            return str(batcher.submit(text, worker.named(key), key=key, user=f"{i % 7}").result(60))
        except DataError as error:
            return str(error)

    with ThreadPoolExecutor(200) as threads:
        found = list(threads.map(ask, range(1000)))
    wanted = [f"{'abc'[i % 3]}: {i}" for i in range(1000)]
    for i in range(49, 1000, 50):
        wanted[i] = f"{'abc'[i % 3]} cannot read that"
    assert found == wanted


# ---- in the app ----------------------------------------------------------------------------------


def test_the_app_mixes_up_no_labels() -> None:
    class Slow(FakeModel):
        def score(self, prompts: Any, answers: Any, **options: Any) -> Any:
            time.sleep(0.01)
            return super().score(prompts, answers, **options)

    model = Slow(SUPPORT | {"lion": "cat", "wolf": "dog"}, strength=4.0)
    service = Service(model)
    kinds = [
        ({"task": "support"}, "my parcel", "delivery status"),
        ({"task": "support"}, "charged twice", "payment problem"),
        ({"labels": ["cat", "dog"]}, "a lion", "cat"),
        ({"labels": ["cat", "dog"]}, "a wolf", "dog"),
        ({"labels": ["dog", "bird"]}, "a wolf", "dog"),
    ]
    service.classify("x", "few-shot", "support")  # to get ready

    def ask(i: int) -> Any:
        options, text, _ = kinds[i % len(kinds)]
        mode = "few-shot" if "task" in options else "zero-shot"
        return service.classify(text, mode, **options)  # type: ignore[arg-type]

    before = len(model.calls)
    with ThreadPoolExecutor(100) as threads:
        found = list(threads.map(ask, range(200)))
    assert [answer.label for answer in found] == [kinds[i % len(kinds)][2] for i in range(200)]
    for i, answer in enumerate(found):
        labels = kinds[i % len(kinds)][0].get("labels")
        assert labels is None or set(answer.probabilities) == set(labels)
    assert len(model.calls) - before < 100  # together
    service.close()


@pytest.mark.integration
@pytest.mark.slow
def test_together_is_what_one_by_one_is(embedded: HFModel) -> None:
    service = Service(embedded)
    texts = [str(example_text(example)) for example in load_dataset("support").test[:24]]
    labels = ["delivery status", "payment problem", "damaged item"]

    def ask(text: str) -> dict[str, float]:
        return dict(service.classify(text, "zero-shot", labels=labels).probabilities)

    single = [ask(text) for text in texts]
    with ThreadPoolExecutor(len(texts)) as threads:
        together = list(threads.map(ask, texts))
    for one, other in zip(single, together, strict=True):
        assert one == pytest.approx(other, abs=5e-6)
    service.close()
