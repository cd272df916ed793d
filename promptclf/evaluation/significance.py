"""Is one classifier better than another, or is it luck? Intervals, tests and plain sentences.

All classifiers are scored on the same rows, so everything here is paired: the rows are resampled
once for all of them, and a test looks only at the rows on which two of them differ in being right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from scipy.special import bdtr, ndtri

from promptclf.errors import DataError
from promptclf.evaluation.metrics import Codes, Floats, confusion_matrix, label_counts, macro_f1

RESAMPLES = 5_000
LEVEL = 0.95
ALPHA = 0.05
POWER = 0.8
_CELLS = 2**23  # resamples are drawn in blocks of at most this many cells: 64 MiB of counts

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two classifiers on the same rows; `a` is right at least as often as `b`.

    `accuracy` and `macro_f1` are differences a - b, each with its paired bootstrap interval.
    `only_a` and `only_b` count the rows that one of them alone gets right. `rows_needed` is the
    number of rows at which such a difference would be found four times in five; None where the
    difference is established already or there is none to find.
    """

    a: str
    b: str
    rows: int
    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval
    only_a: int
    only_b: int
    p_value: float
    p_adjusted: float
    rows_needed: int | None

    @property
    def distinguishable(self) -> bool:
        """Whether the adjusted test finds a difference at the level of 5 %."""
        return self.p_adjusted < ALPHA

    @property
    def verdict(self) -> str:
        """One sentence: who wins and by how much, or what it would take to know."""
        if self.distinguishable:
            low, high = self.accuracy_interval
            return (
                f"{self.a} beats {self.b} by {100 * self.accuracy:.1f} points "
                f"[{100 * low:.1f}, {100 * high:.1f}], {format_p(self.p_adjusted)}"
            )
        tie = f"{self.a} and {self.b} are not distinguishable with {self.rows:,} rows"
        if self.only_a + self.only_b == 0:
            return f"{tie}: they are right and wrong on exactly the same ones"
        if self.rows_needed is None:
            return f"{tie}: each alone is right on {self.only_a:,} of them, so the scores are equal"
        return f"{tie}; about {two_digits(self.rows_needed):,} would be needed"

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary that `from_dict` reads back, with the verdict added."""
        return asdict(self) | {"distinguishable": self.distinguishable, "verdict": self.verdict}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Comparison:
        """Read what `to_dict` wrote; the verdict is derived again."""
        values = {k: v for k, v in values.items() if k not in ("distinguishable", "verdict")}
        for key in ("accuracy_interval", "macro_f1_interval"):
            values[key] = tuple(values[key])
        return cls(**values)


@dataclass(frozen=True)
class Bootstrap:
    """Accuracy and macro-F1 of every classifier on the same resampled rows, each (resamples, m)."""

    accuracy: Floats
    macro_f1: Floats


def paired_bootstrap(
    true: Codes, predicted: Sequence[Codes], n_labels: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> Bootstrap:
    """Score m classifiers on rows drawn with replacement, the same rows for all (Efron, 1979).

    Parameters
    ----------
    true
        Shape (n,): the index of each row's label.
    predicted
        m arrays of shape (n,): the indices that each classifier gave.
    n_labels
        How many labels there are.
    resamples, seed
        How often to draw n rows, and the seed of the draw.

    Raises
    ------
    DataError
        If there are no rows, or arrays differ in length.
    """
    n = len(true)
    if n == 0 or any(len(codes) != n for codes in predicted):
        raise DataError(f"expected predictions for {n} rows (at least one) from every classifier")
    # Scores depend on rows through three counts per label alone, so each resample is one product
    # with a sparse matrix: a row holds its true label, and per classifier its prediction and hit.
    codes = [true]
    for i, guess in enumerate(predicted):
        start = (1 + 2 * i) * n_labels
        codes += [start + guess, np.where(guess == true, start + n_labels + true, -1)]
    column = np.stack(codes, axis=1)
    row = np.broadcast_to(np.arange(n)[:, None], column.shape)
    kept = column >= 0
    indicator = csr_matrix(
        (np.ones(kept.sum()), (column[kept], row[kept])), shape=((1 + 2 * len(predicted)) * n_labels, n)
    )
    accuracy, f1 = [], []
    for weights in _weights(n, resamples, np.random.default_rng(seed)):
        counts = (indicator @ weights).T.reshape(-1, 1 + 2 * len(predicted), n_labels)
        support, guessed, hits = counts[:, :1], counts[:, 1::2], counts[:, 2::2]
        accuracy.append(hits.sum(axis=-1) / n)
        f1.append(macro_f1(hits, support, guessed))
    return Bootstrap(np.concatenate(accuracy), np.concatenate(f1))


def percentile_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """The middle `level` of resampled values."""
    low, high = np.quantile(np.asarray(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact two-sided test: the p-value of the discordant rows (McNemar, 1947).

    Twice the smaller binomial tail, at most 1; 1 if no row is discordant.
    """
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by stepping down, in the given order (Holm, 1979)."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def rows_needed(
    only_a: int, only_b: int, rows: int, *, alpha: float = ALPHA, power: float = POWER
) -> int | None:
    """Rows at which McNemar's test finds a difference, should the discordant rates persist.

    The normal approximation of Connor (1987). None if the rates are equal: no number would do.
    """
    discordant, difference = (only_a + only_b) / rows, abs(only_a - only_b) / rows
    if difference == 0:
        return None
    spread = float(ndtri(1 - alpha / 2)) * math.sqrt(discordant)
    spread += float(ndtri(power)) * math.sqrt(max(0.0, discordant - difference**2))
    # The exact test needs 2 * 0.5**m < alpha: m discordant rows even if all favour one side.
    least = math.ceil((math.log2(2 / alpha)) / discordant)
    return max(math.ceil((spread / difference) ** 2), least)


def compare_pairs(
    names: Sequence[str], true: Codes, predicted: Sequence[Codes], bootstrap: Bootstrap
) -> list[Comparison]:
    """Every pair of classifiers, tested with McNemar's test and adjusted by Holm's method.

    Parameters
    ----------
    names
        m names.
    true, predicted
        As for `paired_bootstrap`.
    bootstrap
        What `paired_bootstrap` returned; its columns follow `names`.
    """
    right = np.stack([codes == true for codes in predicted])
    ranked = [
        (i, j) if right[i].sum() >= right[j].sum() else (j, i) for i, j in combinations(range(len(names)), 2)
    ]
    discordant = [(int((right[i] & ~right[j]).sum()), int((right[j] & ~right[i]).sum())) for i, j in ranked]
    p_values = [mcnemar(*counts) for counts in discordant]
    n_labels = int(max(true.max(), *(codes.max() for codes in predicted))) + 1
    f1 = [float(macro_f1(*label_counts(confusion_matrix(true, codes, n_labels)))) for codes in predicted]
    comparisons = []
    for (i, j), counts, p_value, p_adjusted in zip(ranked, discordant, p_values, holm(p_values), strict=True):
        # Bonferroni's share of the level: never laxer than Holm's, so the size exceeds the rows at hand
        needed = rows_needed(*counts, len(true), alpha=ALPHA / len(ranked)) if p_adjusted >= ALPHA else None
        comparisons.append(
            Comparison(
                a=names[i],
                b=names[j],
                rows=len(true),
                accuracy=float(right[i].mean() - right[j].mean()),
                accuracy_interval=percentile_interval(bootstrap.accuracy[:, i] - bootstrap.accuracy[:, j]),
                macro_f1=f1[i] - f1[j],
                macro_f1_interval=percentile_interval(bootstrap.macro_f1[:, i] - bootstrap.macro_f1[:, j]),
                only_a=counts[0],
                only_b=counts[1],
                p_value=p_value,
                p_adjusted=p_adjusted,
                rows_needed=needed,
            )
        )
    return comparisons


def format_p(p: float) -> str:
    """A p-value as papers print it: ``p<0.001`` or ``p=0.012``."""
    return "p<0.001" if p < 0.001 else f"p={p:.3f}" if p < 0.1 else f"p={p:.2f}"


def _weights(n: int, resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """How often each row was drawn, shape (n, block), until there are `resamples` columns."""
    block = max(1, _CELLS // n)
    for start in range(0, resamples, block):
        width = min(block, resamples - start)
        drawn = rng.integers(n, size=(width, n)) + n * np.arange(width)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=width * n)
        yield counts.reshape(width, n).T.astype(np.float64)


def two_digits(count: int) -> int:
    """`count` rounded up to two significant digits, so that it does not look exact."""
    unit = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // unit) * unit
