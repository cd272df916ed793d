"""The few-shot mode: `fit` chooses which labelled examples stand before a text.

Three ways to choose: the same random examples for every text, or for each text the most similar
ones, by TF-IDF or by the model's own embeddings (Liu et al. 2021, arXiv:2101.06804). "auto" tries
all of them by cross-validation on the training texts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptclf import calibrate
from promptclf.classifier import PRIOR_TEXTS, PromptClassifier, Text, check_labelled, spread
from promptclf.errors import DataError
from promptclf.model import LanguageModel
from promptclf.prompt import PromptTemplate
from promptclf.task import Example, Task

logger = logging.getLogger(__name__)

CV_FOLDS = 3
CV_TEXTS = 192
NEAREST_SHOTS = 8
RANDOM_SHOTS = 4
CALIBRATIONS = ("none", "prior")
BLOCK_CELLS = 2**22  # similarities of texts and examples held at once


class Selector(Protocol):
    """Chooses examples from a pool; made anew for every pool."""

    def choose(self, texts: Sequence[Text]) -> list[list[Example]]:
        """The examples to show before each text, the most telling one last."""


class RandomSelector:
    """The same examples for every text: balanced over labels, interleaved, drawn by a seed."""

    def __init__(self, pool: Sequence[Example], costs: Sequence[int], shots: int, budget: int, seed: int):
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


SELECTIONS = ("random", "tfidf", "embedding")


class FewShotClassifier(PromptClassifier):
    """Labelled examples stand before the text to classify.

    Parameters
    ----------
    calibration
        "none", "prior" (see ZeroShotClassifier) or "auto": chosen by cross-validation.
    selection
        "random" (balanced, the same for all texts), "tfidf" or "embedding" (the most similar ones
        for each text, nearest last, whatever their labels), or "auto": chosen by cross-validation
        on the training texts, 3 folds over at most 192 of them, by log-loss of accuracy ties.
    shots
        How many examples. Default: 4 random ones, or one per label if there are more labels; 8
        nearest ones.
    max_demo_tokens
        Examples are added while they fit into this many tokens. Where none of them fits, all are
        shown shortened, so that a few do; a warning says so.
    seed
        For random examples and folds.

    Attributes
    ----------
    examples_ : list of Example
        The pool: the training texts, and nothing else.
    selection_ : str
    examples_too_long_ : int
        How many of them exceed the token budget: never shown, or, if it is all of them, shortened.
    cross_validation_ : list of dict
        What "auto" measured: selection, calibration, accuracy, log-loss.
    """

    mode = "few-shot"
    choices: ClassVar = {"selection": ("auto", *SELECTIONS), "calibration": ("auto", *CALIBRATIONS)}

    def __init__(
        self,
        task: Task,
        model: LanguageModel | str = "embedded",
        template: PromptTemplate | str | None = None,
        *,
        calibration: str = "auto",
        truncate: bool = False,
        selection: str = "auto",
        shots: int | None = None,
        max_demo_tokens: int = 250,
        seed: int = 0,
    ) -> None:
        super().__init__(task, model, template, calibration=calibration, truncate=truncate)
        self.selection = selection
        self.shots = shots
        self.max_demo_tokens = max_demo_tokens
        self.seed = seed

    def fit(
        self,
        X: Sequence[Text] | None,
        y: Sequence[str] | None = None,
        *,
        validation: tuple[Sequence[Text], Sequence[str]] | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> FewShotClassifier:
        """Keep the labelled texts as the pool, and choose how to pick from it.

        Raises
        ------
        DataError
            If there are no labelled texts, or not even a shortened one fits `max_demo_tokens`.
        """
        self.check_options()
        selection, calibration = self.selection, self.calibration
        texts, labels = check_labelled(self.task, [] if X is None else X, y)
        if not texts:
            raise DataError("few-shot needs labelled texts to choose examples from; give some to fit")
        with self._learning(texts):
            self.examples_ = [make_example(text, label) for text, label in zip(texts, labels, strict=True)]
            self._prepare()
            self._tell_budget()
            self.cross_validation_: list[dict[str, Any]] = []
            if "auto" in (selection, calibration) and len(texts) >= 2 * CV_FOLDS:
                selection, calibration = self._cross_validate(selection, calibration)
            self.selection_ = "random" if selection == "auto" else selection
            self.selector_ = self._selector(self.selection_, range(len(self.examples_)), self.seed)
            self._set_calibration("none", None, 1.0)
            if calibration == "prior":
                self._set_calibration("prior", calibrate.label_prior(self._score_pool(PRIOR_TEXTS)), 1.0)
        return self

    # ---- choosing -----------------------------------------------------------------------------

    def _examples(self, texts: Sequence[Text]) -> Sequence[Sequence[Example]]:
        return self.selector_.choose(texts)

    def _selector(self, selection: str, rows: Sequence[int], seed: int) -> Selector:
        pool = [self._shown[row] for row in rows]
        costs, budget = [self._costs[row] for row in rows], self._budget
        if selection == "random":
            shots = self.shots or max(RANDOM_SHOTS, len(self.classes_))
            return RandomSelector(pool, costs, shots, budget, seed)
        shots = self.shots or NEAREST_SHOTS
        if selection == "tfidf":
            return TfidfSelector(pool, costs, shots, budget)
        return EmbeddingSelector(pool, costs, shots, budget, self.model_)

    def _cross_validate(self, selection: str, calibration: str) -> tuple[str, str]:
        """Try every candidate on held-out training texts; the pool is always the other ones."""
        rng = random.Random(self.seed)
        held = rng.sample(range(len(self.examples_)), min(CV_TEXTS, len(self.examples_)))
        true = np.array([self._column(row) for row in held])
        for chosen in SELECTIONS if selection == "auto" else (selection,):
            scores = np.empty((len(held), len(self.classes_)))
            for fold in range(CV_FOLDS):
                part = range(fold, len(held), CV_FOLDS)
                rows = [held[i] for i in part]
                self.selector_ = self._selector(chosen, self._without(rows), self.seed + fold)
                scores[list(part)] = self._score_rows(rows)
            for name in CALIBRATIONS if calibration == "auto" else (calibration,):
                prior = calibrate.label_prior(scores) if name == "prior" else None
                given = calibrate.probabilities(scores, prior)
                self.cross_validation_.append(
                    {
                        "selection": chosen,
                        "calibration": name,
                        "accuracy": float((given.argmax(axis=1) == true).mean()),
                        "log_loss": float(-np.log(given[np.arange(len(true)), true] + 1e-12).mean()),
                    }
                )
        best = max(self.cross_validation_, key=lambda row: (row["accuracy"], -row["log_loss"]))
        return best["selection"], best["calibration"]

    def _score_pool(self, count: int) -> NDArray[np.float64]:
        """Scores of training texts, none of which sees itself among its examples."""
        rows = spread(range(len(self.examples_)), count)
        half = len(rows) // 2
        if self.selection_ == "random" or not half:
            return self._score_rows(rows)
        kept, scores = self.selector_, []
        for part in (rows[:half], rows[half:]):
            self.selector_ = self._selector(self.selection_, self._without(part), self.seed)
            scores.append(self._score_rows(part))
        self.selector_ = kept
        return np.concatenate(scores)

    def _score_rows(self, rows: Sequence[int]) -> NDArray[np.float64]:
        return self._score(self._prompts_to_learn([example_text(self.examples_[row]) for row in rows]))

    def _without(self, held: Collection[int]) -> list[int]:
        """The other rows of the pool, copies of the held texts left out."""
        out = {example_text(self.examples_[row]) for row in held}
        others = [row for row, example in enumerate(self.examples_) if example_text(example) not in out]
        return others or [row for row in range(len(self.examples_)) if row not in held]

    def _column(self, row: int) -> int:
        return int(np.flatnonzero(self.classes_ == self.examples_[row].label)[0])

    # ---- the budget ---------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Count what each example adds to a prompt; shorten all of them where none fits the budget."""
        self._budget = min(self.max_demo_tokens, self.model_.max_tokens // 2)
        self._shown, self._costs = self.examples_, self._count_costs(self.examples_)
        self.examples_too_long_ = sum(cost > self._budget for cost in self._costs)
        if self.examples_too_long_ < len(self.examples_):
            return
        # Without any example this would be zero-shot under another name.
        room = self._budget // min(self.shots or RANDOM_SHOTS, RANDOM_SHOTS)
        frames = self._count_costs([_cut(example, 0) for example in self.examples_])
        if min(frames) >= room:
            raise DataError(
                f"max_demo_tokens: expected room for an example, more than {min(frames)} tokens each,"
                f" got {room}; give more, or use zero-shot"
            )
        self._shown = [
            self._shortened(*each, room) for each in zip(self.examples_, self._costs, frames, strict=True)
        ]
        self._costs = self._count_costs(self._shown)

    def _shortened(self, example: Example, cost: int, frame: int, room: int) -> Example:
        """The beginning of an example that adds at most `room` tokens, `frame` of them without text."""
        while cost > max(room, frame):
            example = _cut(example, max(0, room - frame) / (cost - frame))
            [cost] = self._count_costs([example])
        return example

    def _tell_budget(self) -> None:
        budget, every = self._budget, len(self.examples_)
        if self.examples_too_long_ == every:
            logger.warning(
                "none of the %d examples fits into %d tokens (max_demo_tokens), so they are shown shortened",
                every,
                budget,
            )
            return
        fitting = {e.label for e, cost in zip(self.examples_, self._costs, strict=True) if cost <= budget}
        if lost := sorted({e.label for e in self.examples_} - fitting):
            logger.warning(
                "no example of %s fits into %d tokens (max_demo_tokens), so none of it is shown",
                ", ".join(map(repr, lost)),
                budget,
            )

    def _count_costs(self, examples: Sequence[Example]) -> list[int]:
        """How many tokens each example adds to a prompt, its answer and separator included."""
        pair = None if self.examples_[0].pair is None else ""
        bare = self.template_.render(self.task, "", pair)
        shown = [self.template_.render(self.task, "", pair, [e]) for e in examples]
        base, *counts = self.model_.count_tokens([bare, *shown])
        return [count - base for count in counts]

    # ---- saving -------------------------------------------------------------------------------

    def _learned(self) -> dict[str, Any]:
        return {
            **super()._learned(),
            "selection": self.selection_,
            "cross_validation": self.cross_validation_,
            "examples_too_long": self.examples_too_long_,
            "examples": [e.to_dict() for e in self.examples_],
        }

    def _restore(self, learned: dict[str, Any], folder: Path) -> None:
        super()._restore(learned, folder)
        self.examples_ = [Example(**values) for values in learned["examples"]]
        self.cross_validation_ = learned["cross_validation"]
        self.selection_ = learned["selection"]
        if self.selection_ not in SELECTIONS:
            raise ValueError(f"unknown selection {self.selection_!r}")
        self._prepare()
        self.selector_ = self._selector(self.selection_, range(len(self.examples_)), self.seed)

    def provenance(self) -> dict[str, Any]:
        """As for every mode; of the examples, their number and a hash."""
        result = super().provenance()
        examples = result["learned"].pop("examples")
        digest = hashlib.sha256(json.dumps(examples, sort_keys=True).encode()).hexdigest()
        result["learned"].update(pool=len(examples), pool_sha256=digest)
        return result


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


def _cut(example: Example, share: float) -> Example:
    """The beginning of an example's text, and of its pair."""
    text, pair = example.text, example.pair
    end = None if pair is None else pair[: int(share * len(pair))]
    return replace(example, text=text[: int(share * len(text))], pair=end)


def joined(text: Text) -> str:
    """A text, or a pair as two lines."""
    return text if isinstance(text, str) else "\n".join(text)


def make_example(text: Text, label: str) -> Example:
    """An example of a text or a pair."""
    return Example(text, label) if isinstance(text, str) else Example(text[0], label, text[1])


def example_text(example: Example) -> Text:
    """The text of an example, or its pair."""
    return example.text if example.pair is None else (example.text, example.pair)
