"""Intervals, tests and sentences: against scipy, against the slow way, and in words."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest, norm
from sklearn.metrics import accuracy_score, f1_score

from promptclf.errors import DataError
from promptclf.evaluation import significance
from promptclf.evaluation.significance import (
    Comparison,
    compare_pairs,
    format_p,
    holm,
    mcnemar,
    paired_bootstrap,
    percentile_interval,
    rows_needed,
)


def answers(true: NDArray[np.int64], share: float, k: int, seed: int) -> NDArray[np.int64]:
    """Predictions that are right on about that share of the rows."""
    rng = np.random.default_rng(seed)
    wrong = (true + rng.integers(1, k, size=len(true))) % k
    return np.where(rng.random(len(true)) < share, true, wrong)


def comparison(only_a: int, only_b: int, rows: int, p: float, needed: int | None = None) -> Comparison:
    gain = (only_a - only_b) / rows
    return Comparison("X", "Y", rows, gain, (0.17, 0.256), gain, (0.1, 0.3), only_a, only_b, p, p, needed)


# ---- the bootstrap --------------------------------------------------------------------------------


def test_resamples_score_as_scikit_learn_scores_them() -> None:
    k, n = 4, 30
    true = np.random.default_rng(1).integers(k - 1, size=n)  # the last label has no row
    predicted = [answers(true, 0.8, k, 2), answers(true, 0.4, k, 3)]
    found = paired_bootstrap(true, predicted, k, resamples=50, seed=7)
    drawn = np.random.default_rng(7).integers(n, size=(50, n))
    for b, rows in enumerate(drawn):
        for m, codes in enumerate(predicted):
            assert found.accuracy[b, m] == pytest.approx(accuracy_score(true[rows], codes[rows]), abs=1e-12)
            expected = f1_score(true[rows], codes[rows], average="macro", zero_division=0)
            assert found.macro_f1[b, m] == pytest.approx(expected, abs=1e-12)


def test_all_classifiers_see_the_same_resamples() -> None:
    true = np.random.default_rng(0).integers(3, size=60)
    codes = answers(true, 0.6, 3, 1)
    alone = paired_bootstrap(true, [codes], 3, resamples=200, seed=5)
    twice = paired_bootstrap(true, [codes, codes], 3, resamples=200, seed=5)
    assert (twice.accuracy[:, 0] == twice.accuracy[:, 1]).all()
    assert (twice.macro_f1 == alone.macro_f1).all()
    other = paired_bootstrap(true, [codes], 3, resamples=200, seed=6)
    assert (other.accuracy != alone.accuracy).any()


def test_the_block_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    true = np.random.default_rng(0).integers(3, size=40)
    codes = answers(true, 0.6, 3, 1)
    whole = paired_bootstrap(true, [codes], 3, resamples=100)
    monkeypatch.setattr(significance, "_CELLS", 40 * 7)
    assert (paired_bootstrap(true, [codes], 3, resamples=100).macro_f1 == whole.macro_f1).all()


def test_the_interval_agrees_with_theory() -> None:
    # Of an accuracy of 80 % on 400 rows: 80 ± 1.96 * 2 points.
    true = np.zeros(400, dtype=np.int64)
    codes = np.repeat([0, 1], [320, 80])
    low, high = percentile_interval(paired_bootstrap(true, [codes], 2).accuracy[:, 0])
    assert (low, high) == pytest.approx((0.8 - 0.0392, 0.8 + 0.0392), abs=0.005)


def test_a_difference_has_a_shorter_interval_than_unpaired_resampling_gives() -> None:
    true = np.random.default_rng(0).integers(5, size=300)
    first = answers(true, 0.7, 5, 1)
    second = np.where(np.arange(300) < 15, (true + 1) % 5, first)  # differs on fifteen rows at most
    drawn = paired_bootstrap(true, [first, second], 5).accuracy
    low, high = percentile_interval(drawn[:, 0] - drawn[:, 1])
    own = percentile_interval(drawn[:, 0])
    assert high - low < (own[1] - own[0]) / 2


@pytest.mark.parametrize(("rows", "predicted"), [(0, 0), (3, 2)])
def test_rows_must_match(rows: int, predicted: int) -> None:
    with pytest.raises(DataError, match="expected predictions for"):
        paired_bootstrap(np.zeros(rows, dtype=int), [np.zeros(predicted, dtype=int)], 2)


# ---- McNemar and Holm -----------------------------------------------------------------------------


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_equals_the_binomial_test_of_scipy(only_a: int, only_b: int) -> None:
    expected = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected, abs=1e-12, rel=1e-9)
    assert mcnemar(only_a, only_b) == mcnemar(only_b, only_a)


def test_mcnemar_on_cases_done_by_hand() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    assert mcnemar(6, 0) == 2 * 0.5**6
    assert mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 64)


def test_holm_on_a_case_done_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_none_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    m = len(p_values)
    assert all(p <= q <= min(1, m * p) + 1e-12 for p, q in zip(p_values, adjusted, strict=True))
    ranked = [q for _, q in sorted(zip(p_values, adjusted, strict=True))]
    assert ranked == sorted(ranked)


# ---- how many rows --------------------------------------------------------------------------------


def test_rows_needed_on_a_case_done_by_hand() -> None:
    # 30 and 20 of 250 rows: rates 0.12 and 0.08, difference 0.04.
    z = norm.ppf(0.975) * np.sqrt(0.2) + norm.ppf(0.8) * np.sqrt(0.2 - 0.0016)
    assert rows_needed(30, 20, 250) == int(np.ceil((z / 0.04) ** 2))
    assert rows_needed(20, 30, 250) == rows_needed(30, 20, 250)
    assert rows_needed(20, 20, 250) is None
    assert rows_needed(0, 0, 250) is None


def test_that_many_rows_do_find_the_difference_four_times_in_five() -> None:
    rates = np.array([0.12, 0.06, 0.82])
    needed = rows_needed(12, 6, 100)
    assert needed is not None
    rng = np.random.default_rng(0)
    found = [mcnemar(int(a), int(b)) < 0.05 for a, b, _ in rng.multinomial(needed, rates, size=2000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 10))
def test_rows_needed_exceed_the_rows_that_were_not_enough(only_a: int, only_b: int, pairs: int) -> None:
    rows, alpha = 200, 0.05 / pairs
    if only_a != only_b and mcnemar(only_a, only_b) >= alpha:
        needed = rows_needed(only_a, only_b, rows, alpha=alpha)
        assert needed is not None
        assert needed > rows


# ---- pairs and their sentences --------------------------------------------------------------------


def test_every_pair_is_compared_with_the_better_one_first() -> None:
    k, n = 4, 500
    true = np.random.default_rng(0).integers(k, size=n)
    predicted = [answers(true, share, k, seed) for seed, share in enumerate((0.5, 0.9, 0.88))]
    drawn = paired_bootstrap(true, predicted, k, resamples=500)
    found = compare_pairs(["zero-shot", "LoRA", "TF-IDF"], true, predicted, drawn)
    assert [(c.a, c.b) for c in found[:2]] == [("LoRA", "zero-shot"), ("TF-IDF", "zero-shot")]
    first = found[0]
    right = [codes == true for codes in predicted]
    assert first.only_a == (right[1] & ~right[0]).sum()
    assert first.only_b == (right[0] & ~right[1]).sum()
    assert first.accuracy == pytest.approx((first.only_a - first.only_b) / n)
    assert first.accuracy_interval == percentile_interval(drawn.accuracy[:, 1] - drawn.accuracy[:, 0])
    scores = [f1_score(true, codes, average="macro") for codes in predicted]
    assert first.macro_f1 == pytest.approx(scores[1] - scores[0])
    assert first.macro_f1_interval[0] < first.macro_f1 < first.macro_f1_interval[1]
    assert [c.p_adjusted for c in found] == holm([c.p_value for c in found])
    assert first.distinguishable
    assert first.rows_needed is None
    assert not found[2].distinguishable
    assert found[2].rows_needed is not None
    assert found[2].rows_needed > n


def test_one_classifier_has_nothing_to_compare() -> None:
    true = np.array([0, 1])
    assert compare_pairs(["a"], true, [true], paired_bootstrap(true, [true], 2, resamples=2)) == []


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (comparison(70, 17, 249, 1e-8), "X beats Y by 21.3 points [17.0, 25.6], p<0.001"),
        (
            comparison(12, 8, 250, 0.5, 873),
            "X and Y are not distinguishable with 250 rows; about 880 would be needed",
        ),
        (
            comparison(12, 11, 250, 1, 123_456),
            "X and Y are not distinguishable with 250 rows; about 130,000 would be needed",
        ),
        (
            comparison(9, 9, 1250, 1),
            "X and Y are not distinguishable with 1,250 rows: "
            "each alone is right on 9 of them, so the scores are equal",
        ),
        (
            comparison(0, 0, 250, 1),
            "X and Y are not distinguishable with 250 rows: "
            "they are right and wrong on exactly the same ones",
        ),
    ],
)
def test_verdicts(found: Comparison, sentence: str) -> None:
    assert found.verdict == sentence


def test_a_comparison_survives_json() -> None:
    found = comparison(12, 8, 250, 0.5, 873)
    values = json.loads(json.dumps(found.to_dict()))
    assert values["verdict"] == found.verdict
    assert Comparison.from_dict(values) == found


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0009, "p<0.001"), (0.001, "p=0.001"), (0.0123, "p=0.012"), (0.456, "p=0.46"), (1, "p=1.00")],
)
def test_p_values_are_printed_as_in_papers(p: float, text: str) -> None:
    assert format_p(p) == text
