"""A report of made-up predictions, with texts and labels that must be escaped."""

from __future__ import annotations

from typing import Any

import numpy as np

from promptclf.evaluation.report import Report, build_report, score_predictions
from promptclf.task import Example
from tab_context import NASTY

LABELS = ["bad & <b>", "good", "so-so"]


def make_report(rows: int = 40) -> tuple[Report, list[Example]]:
    """Three modes and the baseline; LoRA is right where the row's number is no multiple of 8."""
    rng = np.random.default_rng(0)
    texts = [f"{NASTY} text {n} " + "long " * (80 if n == 2 else 1) for n in range(rows)]
    true = [LABELS[n % 3] for n in range(rows)]

    def result(name: str, mode: str, wrong: int, seconds: float) -> Any:
        proba = rng.dirichlet(np.ones(3), size=rows) * 0.2
        for n in range(rows):
            proba[n, (n + (n % wrong == 0)) % 3] += 0.8
        timing = {"p50_ms": 12.0, "p95_ms": 20.0, "seconds_per_1000": seconds, "fit_seconds": 90.0}
        return score_predictions(name, true, proba, LABELS, mode=mode, timing=timing)

    results = [
        result("zero-shot", "zero-shot", 2, 30.0),
        result("few-shot", "few-shot", 3, 120.0),
        result("lora", "lora", 8, 25.0),
        result("TF-IDF + SVM", "tfidf-svm", 4, 1.0),
    ]
    results[0].truncated = 2
    examples = [Example(text, label) for text, label in zip(texts, true, strict=True)]
    return build_report(results, true, LABELS, task="desk", resamples=200), examples
