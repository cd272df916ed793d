"""The packaged task: enough rows, no leaks between its splits, and not too easy."""

from __future__ import annotations

from collections import Counter

import pytest

from promptclf.classifiers.baselines import TfidfSvmClassifier
from promptclf.data.dataset import Dataset, load_dataset
from promptclf.data.similarity import near_duplicates
from promptclf.evaluation.measure import columns


@pytest.fixture(scope="module")
def support() -> Dataset:
    return load_dataset("support")


def test_sizes(support: Dataset) -> None:
    counts = {name: Counter(e.label for e in rows) for name, rows in support.splits.items()}
    assert len(support.task.labels) == 10
    assert sum(sum(count.values()) for count in counts.values()) >= 800
    assert sum(counts["test"].values()) >= 250
    for count in counts.values():
        assert set(count) == set(support.task.labels)
        assert max(count.values()) <= 1.2 * min(count.values())


def test_texts_are_varied(support: Dataset) -> None:
    texts = [e.text for rows in support.splits.values() for e in rows]
    words = sorted(len(text.split()) for text in texts)
    assert words[0] <= 5 and words[-1] >= 40
    assert all(text == text.strip() and "\n" not in text for text in texts)
    openings = Counter(" ".join(text.lower().split()[:3]) for text in texts)
    assert openings.most_common(1)[0][1] <= 0.02 * len(texts)


def test_no_two_rows_are_near_duplicates(support: Dataset) -> None:
    texts = [e.text for rows in support.splits.values() for e in rows]
    assert near_duplicates(texts, threshold=0.5, size=5) == []
    again = [*texts, texts[0] + "!"]
    assert [(i, j) for i, j, _ in near_duplicates(again, threshold=0.5, size=5)] == [(0, len(texts))]


def test_words_alone_do_not_solve_it(support: Dataset) -> None:
    texts, labels = columns(support.train)
    test, truth = columns(support.test)
    svm = TfidfSvmClassifier(support.task).fit(texts, labels, validation=columns(support.validation))
    right = sum(a == b for a, b in zip(svm.predict(test), truth, strict=True))
    assert 0.3 < right / len(truth) <= 0.92
