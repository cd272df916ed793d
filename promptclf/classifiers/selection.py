"""Which labelled examples stand before a text: the same for all texts, or the most similar ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from promptclf.classifiers.base import Text
from promptclf.lm.model import LanguageModel
from promptclf.task import Example

BLOCK_CELLS = 2**22  # similarities of texts and examples held at once


class Selector(Protocol):
    """Chooses examples from a pool; made anew for every pool."""

    def choose(self, texts: Sequence[Text]) -> list[list[Example]]:
        """The examples to show before each text, the most telling one last."""


class RandomSelector:
    """The same examples for every text: balanced over labels, interleaved, drawn by a seed."""

    def __init__(self, pool: Sequence[Example], costs: Sequence[int], shots: int, budget: int, seed: str):
        rng = random.Random(seed)
        by_label: dict[str, list[int]] = {}
        for index in rng.sample(range(len(pool)), len(pool)):
            by_label.setdefault(pool[index].label, []).append(index)
        labels = rng.sample(sorted(by_label), len(by_label))
        rounds = max(map(len, by_label.values()), default=0)
        # Round after round through the labels: neighbours differ, and no label leads.
        order = [by_label[label][r] for r in range(rounds) for label in labels if r < len(by_label[label])]
        self.examples = [pool[index] for index in _within(order, costs, shots, budget)]

    def choose(self, texts: Sequence[Text]) -> list[list[Example]]:
        return [self.examples] * len(texts)


class TfidfSelector:
    """For each text the most similar examples by TF-IDF cosine, the nearest last."""

    def __init__(self, pool: Sequence[Example], costs: Sequence[int], shots: int, budget: int):
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.pool, self.costs, self.shots, self.budget = pool, costs, shots, budget
        # Character n-grams inside words: they also hold for misspellings and for Chinese.
        self.vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True)
        texts = [joined(example_text(e)).strip() or "-" for e in pool]  # no n-gram at all is an error
        self.vectors = self.vectorizer.fit_transform(texts)

    def choose(self, texts: Sequence[Text]) -> list[list[Example]]:
        nearest: list[list[Example]] = []
        size = max(1, BLOCK_CELLS // len(self.pool))
        for start in range(0, len(texts), size):
            block = [joined(text) for text in texts[start : start + size]]
            similar = (self.vectorizer.transform(block) @ self.vectors.T).toarray()
            nearest += map(self._nearest, similar)
        return nearest

    def _nearest(self, similarity: NDArray[Any]) -> list[Example]:
        order = np.argsort(-similarity, kind="stable")[: 4 * self.shots].tolist()
        return [self.pool[i] for i in reversed(_within(order, self.costs, self.shots, self.budget))]


class EmbeddingSelector(TfidfSelector):
    """The same by the cosine of the model's own centred text embeddings."""

    def __init__(
        self, pool: Sequence[Example], costs: Sequence[int], shots: int, budget: int, model: LanguageModel
    ):
        self.pool, self.costs, self.shots, self.budget = pool, costs, shots, budget
        self.model = model
        vectors = model.embed([joined(example_text(e)) for e in pool])
        self.centre = vectors.mean(axis=0)
        self.unit = self._normalised(vectors)

    def choose(self, texts: Sequence[Text]) -> list[list[Example]]:
        # One by one: a product of two matrices rounds in a way that depends on a text's company.
        units = self._normalised(self.model.embed([joined(text) for text in texts]))
        return [self._nearest(self.unit @ unit) for unit in units]

    def _normalised(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        centred = vectors - self.centre
        unit: NDArray[np.float32] = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
        return unit


def _within(order: Sequence[int], costs: Sequence[int], shots: int, budget: int) -> list[int]:
    """The first `shots` indices of `order` whose costs fit the budget together."""
    chosen: list[int] = []
    for index in order:
        if len(chosen) == shots:
            break
        if costs[index] <= budget:
            chosen.append(index)
            budget -= costs[index]
    return chosen


def joined(text: Text) -> str:
    """A text, or a pair as two lines."""
    return text if isinstance(text, str) else "\n".join(text)


def make_example(text: Text, label: str) -> Example:
    """An example of a text or a pair."""
    return Example(text, label) if isinstance(text, str) else Example(text[0], label, text[1])


def example_text(example: Example) -> Text:
    """The text of an example, or its pair."""
    return example.text if example.pair is None else (example.text, example.pair)
