"""The few-shot mode: `fit` chooses which labelled examples stand before a text.

Three ways to choose: the same random examples for every text, or for each text the most similar
ones, by TF-IDF or by the model's own embeddings (Liu et al. 2021, arXiv:2101.06804). "auto" tries
all of them by cross-validation on the training texts, and several random sets, since which examples
are shown moves accuracy by tens of points (Zhao et al. 2021, arXiv:2102.09690).
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from promptclf.classifiers import calibrate
from promptclf.classifiers.base import PromptClassifier, Text, check_labelled, spread
from promptclf.classifiers.selection import (
    EmbeddingSelector,
    RandomSelector,
    Selector,
    TfidfSelector,
    example_text,
    make_example,
)
from promptclf.errors import DataError
from promptclf.lm.model import LanguageModel
from promptclf.prompt import PromptTemplate
from promptclf.task import Example, Task

logger = logging.getLogger(__name__)

CV_FOLDS = 3
CV_TEXTS = 192
NEAREST_SHOTS = 8
RANDOM_SHOTS = 4
CALIBRATIONS = ("none", "prior")
RANDOM_DRAWS = 5  # sets of random examples that are tried
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
        on at most 192 training texts, by log-loss of accuracy ties. Random sets differ by as much
        as ways to choose do, so that "auto" tries five of them.
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
    draw_ : int
        Which of the seed's random sets is shown.
    examples_too_long_ : int
        How many of them exceed the token budget: never shown, or, if it is all of them, shortened.
    cross_validation_ : list of dict
        What "auto" measured: selection, draw, calibration, accuracy, log-loss.
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
            self.draw_ = 0
            if "auto" in (selection, calibration) and len(texts) >= 2 * CV_FOLDS:
                selection, calibration = self._cross_validate(selection, calibration)
            self.selection_ = "random" if selection == "auto" else selection
            self.selector_ = self._selector(self.selection_, range(len(self.examples_)))
            self._set_calibration("none", None, 1.0)
            if calibration == "prior":
                self._set_calibration(
                    "prior", calibrate.label_prior(self._score_pool(calibrate.PRIOR_TEXTS)), 1.0
                )
        return self

    def with_template(self, template: PromptTemplate) -> FewShotClassifier:
        """The fitted classifier with another template: it shows the same examples, and is not calibrated."""
        check_is_fitted(self, "classes_")
        other = copy(self)
        other.template = other.template_ = template
        other._set_calibration("none", None, 1.0)
        # What a template adds to an example is the same for all of them.
        more = other._count_costs(self.examples_[:1])[0] - self._count_costs(self.examples_[:1])[0]
        other._costs = [cost + more for cost in self._costs]
        if self.selection_ == "random":
            other.selector_ = other._selector("random", range(len(self.examples_)))
        else:
            other.selector_ = copy(self.selector_)
            other.selector_.costs = other._costs  # type: ignore[attr-defined]
        return other

    # ---- choosing -----------------------------------------------------------------------------

    def _examples(self, texts: Sequence[Text]) -> Sequence[Sequence[Example]]:
        return self.selector_.choose(texts)

    def _selector(self, selection: str, rows: Sequence[int]) -> Selector:
        pool = [self._shown[row] for row in rows]
        costs, budget = [self._costs[row] for row in rows], self._budget
        if selection == "random":
            shots = self.shots or max(RANDOM_SHOTS, len(self.classes_))
            return RandomSelector(pool, costs, shots, budget, f"{self.seed}/{self.draw_}")
        shots = self.shots or NEAREST_SHOTS
        if selection == "tfidf":
            return TfidfSelector(pool, costs, shots, budget)
        return EmbeddingSelector(pool, costs, shots, budget, self.model_)

    def _cross_validate(self, selection: str, calibration: str) -> tuple[str, str]:
        """Try every candidate on training texts that it does not show, and keep the best set's draw."""
        rng = random.Random(self.seed)
        held = rng.sample(range(len(self.examples_)), min(CV_TEXTS, len(self.examples_)))
        tried = SELECTIONS if selection == "auto" else (selection,)
        for chosen in tried:
            for self.draw_ in range(RANDOM_DRAWS if chosen == "random" else 1):
                rows, scores = self._try(held, chosen)
                if not rows:  # all of them are shown
                    continue
                true = np.array([self._column(row) for row in rows], dtype=int)
                for name in CALIBRATIONS if calibration == "auto" else (calibration,):
                    prior = calibrate.label_prior(scores) if name == "prior" else None
                    given = calibrate.probabilities(scores, prior)
                    self.cross_validation_.append(
                        {
                            "selection": chosen,
                            "draw": self.draw_,
                            "calibration": name,
                            "accuracy": float((given.argmax(axis=1) == true).mean()),
                            "log_loss": float(-np.log(given[np.arange(len(true)), true] + 1e-12).mean()),
                        }
                    )
        if not self.cross_validation_:
            return selection, "none"
        best = max(self.cross_validation_, key=lambda row: (row["accuracy"], -row["log_loss"]))
        self.draw_ = best["draw"]
        return best["selection"], best["calibration"]

    def _try(self, held: Sequence[int], selection: str) -> tuple[Sequence[int], NDArray[np.float64]]:
        """Held rows and their scores, with examples that are none of them."""
        if selection == "random":
            # The very set that would be shown, so what it shows cannot be held out.
            self.selector_ = self._selector(selection, range(len(self.examples_)))
            shown = {example_text(example) for example in self.selector_.choose([""])[0]}
            rows = [row for row in held if example_text(self._shown[row]) not in shown]
            return rows, self._score_rows(rows) if rows else np.empty((0, len(self.classes_)))
        scores = np.empty((len(held), len(self.classes_)))
        for fold in range(CV_FOLDS):
            part = held[fold::CV_FOLDS]
            self.selector_ = self._selector(selection, self._without(part))
            scores[fold::CV_FOLDS] = self._score_rows(part)
        return held, scores

    def _score_pool(self, count: int) -> NDArray[np.float64]:
        """Scores of training texts, none of which sees itself among its examples."""
        rows = spread(range(len(self.examples_)), count)
        half = len(rows) // 2
        if self.selection_ == "random" or not half:
            return self._score_rows(rows)
        kept, scores = self.selector_, []
        for part in (rows[:half], rows[half:]):
            self.selector_ = self._selector(self.selection_, self._without(part))
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
            "draw": self.draw_,
            "cross_validation": self.cross_validation_,
            "examples_too_long": self.examples_too_long_,
            "examples": [e.to_dict() for e in self.examples_],
        }

    def _restore(self, learned: dict[str, Any], folder: Path) -> None:
        super()._restore(learned, folder)
        self.examples_ = [Example(**values) for values in learned["examples"]]
        self.cross_validation_ = learned["cross_validation"]
        self.selection_, self.draw_ = learned["selection"], learned["draw"]
        if self.selection_ not in SELECTIONS:
            raise ValueError(f"unknown selection {self.selection_!r}")
        self._prepare()
        self.selector_ = self._selector(self.selection_, range(len(self.examples_)))

    def provenance(self) -> dict[str, Any]:
        """As for every mode; of the examples, their number and a hash."""
        result = super().provenance()
        examples = result["learned"].pop("examples")
        digest = hashlib.sha256(json.dumps(examples, sort_keys=True).encode()).hexdigest()
        result["learned"].update(pool=len(examples), pool_sha256=digest)
        return result


def _cut(example: Example, share: float) -> Example:
    """The beginning of an example's text, and of its pair."""
    text, pair = example.text, example.pair
    end = None if pair is None else pair[: int(share * len(pair))]
    return replace(example, text=text[: int(share * len(text))], pair=end)
