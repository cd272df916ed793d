"""Priors and temperatures: probabilities add up, and calibration does what its paper says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax

from promptclf.classifiers.calibrate import fit_temperature, label_prior, probabilities, share_before

SCORES = arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(2, 6)), elements=st.floats(-400, 0))


def log_loss(scores: np.ndarray, truth: np.ndarray, temperature: float) -> float:
    return float(-log_softmax(scores / temperature, axis=1)[np.arange(len(truth)), truth].mean())


@given(SCORES, st.floats(0.05, 20))
def test_rows_sum_to_one(scores: np.ndarray, temperature: float) -> None:
    given_prior = probabilities(scores, scores.mean(axis=0), temperature)
    for found in (probabilities(scores), given_prior):
        assert found.shape == scores.shape
        assert (found >= 0).all()
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)


@given(SCORES)
def test_only_differences_within_a_row_count(scores: np.ndarray) -> None:
    shifted = scores + np.arange(len(scores))[:, None] * 7.0
    np.testing.assert_allclose(probabilities(shifted), probabilities(scores), atol=1e-9)


def test_without_calibration_a_row_is_a_softmax() -> None:
    np.testing.assert_allclose(probabilities(np.log([[0.2, 0.1, 0.1]])), [[0.5, 0.25, 0.25]], atol=1e-12)


@given(SCORES, st.floats(0.5, 20), st.floats(1e-9, 0.01))
def test_what_is_left_out_weighs_no_more_after_a_temperature(
    scores: np.ndarray, temperature: float, share: float
) -> None:
    order = np.argsort(scores, axis=1)
    weights = np.take_along_axis(probabilities(scores), order, axis=1).cumsum(axis=1)
    after = np.take_along_axis(probabilities(scores, temperature=temperature), order, axis=1).cumsum(axis=1)
    # What weighs so little of what is kept, as the search counts it.
    left_out = weights <= share_before(share, temperature, scores.shape[1]) * (1 - weights)
    assert (after[left_out] <= share * (1 + 1e-9)).all()


def test_the_prior_is_the_mean_probability() -> None:
    scores = np.log([[0.9, 0.1], [0.5, 0.5], [0.1, 0.3]])  # the last row is not normalised
    np.testing.assert_allclose(np.exp(label_prior(scores)), [(0.9 + 0.5 + 0.25) / 3, (0.1 + 0.5 + 0.75) / 3])


def test_dividing_out_the_prior_removes_a_leaning() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(300) % 3
    scores = rng.normal(size=(300, 3)) + 1.5 * np.eye(3)[truth]
    leaning = scores + np.array([4.0, 0.0, -2.0])
    before = (leaning.argmax(axis=1) == truth).mean()
    after = (probabilities(leaning, label_prior(leaning)).argmax(axis=1) == truth).mean()
    assert before < 0.45
    assert after > before + 0.2


def test_a_prior_of_scores_far_apart_is_finite() -> None:
    prior = label_prior(np.array([[0.0, -900.0], [0.0, -1200.0]]))
    assert np.isfinite(prior).all()
    assert np.isfinite(probabilities(np.array([[-900.0, 0.0]]), prior)).all()


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_scores_is_found(true_temperature: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20_000, 4)) * 2
    truth = np.array([rng.choice(4, p=row) for row in probabilities(logits)])
    assert fit_temperature(logits * true_temperature, truth) == pytest.approx(true_temperature, rel=0.05)


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 6), st.floats(0.1, 30))
def test_a_fitted_temperature_is_never_worse_than_none(seed: int, n: int, k: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    scores, truth = rng.normal(size=(n, k)) * scale, rng.integers(k, size=n)
    temperature = fit_temperature(scores, truth)
    assert 0.05 <= temperature <= 20
    assert log_loss(scores, truth, temperature) <= log_loss(scores, truth, 1.0) + 1e-6


def test_a_temperature_keeps_the_order_of_labels() -> None:
    scores = np.random.default_rng(2).normal(size=(50, 5)) * 9
    for temperature in (0.05, 0.7, 20.0):
        found = probabilities(scores, temperature=temperature)
        np.testing.assert_array_equal(found.argmax(axis=1), scores.argmax(axis=1))


def test_scores_that_are_always_right_or_wrong_have_a_bounded_temperature() -> None:
    scores, truth = np.array([[5.0, 0.0], [0.0, 5.0]]), np.array([0, 1])
    assert 0.05 <= fit_temperature(scores, truth) < 1
    assert 2 < fit_temperature(scores, 1 - truth) < 10
    many = np.tile(scores, (500, 1)), np.tile(truth, 500)
    assert 0.05 <= fit_temperature(*many) < 0.7
    assert 15 < fit_temperature(many[0], 1 - many[1]) <= 20


def test_rows_that_are_all_right_do_not_make_it_certain() -> None:
    scores = np.array([[1.0, 0.0], [0.0, 1.0]] * 3)
    temperature = fit_temperature(scores, np.array([0, 1] * 3))
    assert 0.2 < temperature < 1
    many = fit_temperature(np.tile(scores, (100, 1)), np.array([0, 1] * 300))
    assert many < temperature  # more rows, more evidence
