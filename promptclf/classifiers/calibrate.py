"""From log-likelihoods to probabilities: label priors and temperature.

Arrays are n texts x k labels; log-likelihoods are in nats and need not be normalised.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp, softmax

Array = NDArray[np.float64]

CONTENT_FREE = ("N/A", "", "[MASK]")
MIN_PRIOR_TEXTS = 100  # with fewer texts the estimated prior is worse than none
PRIOR_TEXTS = 256  # at most so many are read for an estimate


def probabilities(scores: Array, log_prior: Array | None = None, temperature: float = 1.0) -> Array:
    """Normalise log-likelihoods over the labels, after dividing out a prior and a temperature.

    Returns
    -------
    Array of shape (n, k); rows sum to 1.
    """
    shifted = scores if log_prior is None else scores - log_prior
    return np.asarray(softmax(shifted / temperature, axis=1))


def label_prior(scores: Array) -> Array:
    """The model's mean probability of each label over some texts, as logarithms: shape (k,).

    Dividing it out is batch calibration (Zhou et al. 2023, arXiv:2309.17249); over content-free
    texts it is contextual calibration (Zhao et al. 2021, arXiv:2102.09690). Both take the labels
    to be about equally frequent.
    """
    return np.asarray(logsumexp(log_softmax(scores, axis=1), axis=0) - np.log(len(scores)))


def share_before(share: float, temperature: float, labels: int) -> float:
    """How much of all labels some may weigh, so that after the temperature it is at most `share`.

    A temperature T above 1 raises small shares: of n labels that weigh s together, to n^(1 - 1/T) s^(1/T)
    at most. One below 1 lowers them, as long as they are below 1/n.
    """
    return share if temperature <= 1 else share**temperature / labels ** (temperature - 1)


def fit_temperature(scores: Array, labels: NDArray[np.intp]) -> float:
    """The temperature with the lowest log-loss on labelled texts (Guo et al. 2017, arXiv:1706.04599).

    Few rows that are all right would want it to vanish, so its logarithm gets a standard normal prior,
    which weighs as little as half a text where the temperature is e.

    Parameters
    ----------
    scores
        Log-likelihoods, shape (n, k).
    labels
        Column of the true label of each text, shape (n,).

    Returns
    -------
    A number between 0.05 and 20; it never changes which label is best.
    """
    from scipy.optimize import minimize_scalar  # takes a while, and only fitting needs it

    rows = np.arange(len(labels))

    def log_loss(log_temperature: float) -> float:
        fit = -log_softmax(scores / np.exp(log_temperature), axis=1)[rows, labels].sum()
        return float(fit + log_temperature**2 / 2)

    found = minimize_scalar(log_loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))
