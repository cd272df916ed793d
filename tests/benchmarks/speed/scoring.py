"""Scoring labels: ours, and what people use today."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.speed import device
from benchmarks.speed.runner import Group, Variant
from benchmarks.speed.worker import Job, TokenCounter
from benchmarks.speed.workload import Work
from promptclf import load_model

PEERS = "benchmarks.speed.scoring_peers"
TEXTS = 32
WARM_TEXTS = 4
OURS_SHIPPED = "ours, as shipped"
LLAMA, SHIPPED = "llama.cpp Q4_0", "llama.cpp Q4_1"


class Ours(Job):
    """`HFModel.score`: log-likelihoods of all labels after each prompt.

    Parameters
    ----------
    cold
        Forget the kept prefix before each round, so that its forward pass counts.
    epsilon
        1: only the arg-max is sure to be right.
    shipped
        In the precision that `load_model` chooses here, not in that of the peers.
    """

    def __init__(
        self, work: str, texts: int, cold: bool = False, epsilon: float = 0.0, shipped: bool = False
    ) -> None:
        super().__init__()
        self.model = load_model() if shipped else load_model(dtype=device.dtype_name())
        self.prompts, self.answers = Work(work).prompts(texts), Work(work).answers
        self.cold, self.epsilon = cold, epsilon
        if not epsilon:  # how little a search may get by with, nobody knows beforehand
            self.facts = {**Work(work).needed(self.model, texts), "dtype": self.model.info.dtype}
        self.counter = TokenCounter(self.model.module)

    @property
    def processed(self) -> int:  # type: ignore[override]
        return self.counter.tokens

    def prepare(self) -> None:
        if self.cold:
            self.model.engine.forget(None)

    def warm_up(self) -> None:
        self._score(WARM_TEXTS)

    def run(self) -> list[list[float]]:
        found: list[list[float]] = self._score(len(self.prompts)).tolist()
        return found

    def _score(self, count: int) -> Any:
        return self.model.score(self.prompts[:count], self.answers, epsilon=self.epsilon)


class Peak(Job):
    """The matrix-product peak, measured beside the others in every round."""

    def run(self) -> None:
        self.facts = {"peak_gflops": device.matrix_product_peak()}


def ours(
    work: str, texts: int = TEXTS, name: str = "ours", rounds: int = 0, threads: int = 1, **options: Any
) -> Variant:
    """A variant of ours, with options of `Ours`."""
    arguments = {"work": work, "texts": texts, **options}
    make = "benchmarks.speed.scoring:Ours"
    return Variant(name, make, texts, arguments, threads=threads, rounds=rounds)


def peer(name: str, make: str, work: str, texts: int, **options: Any) -> Variant:
    """A variant of `scoring_peers`, with options of its class."""
    limits = {name: options.pop(name) for name in ("rounds", "warm_up") if name in options}
    arguments = {"work": work, "texts": texts, **options}
    return Variant(name, f"{PEERS}:{make}", texts, arguments, **limits)


PEAK = Variant("peak", "benchmarks.speed.scoring:Peak", 1)


def agreement(found: dict[str, Any]) -> dict[str, float]:
    """On how many texts others find our arg-max, and how far log-likelihoods are from ours."""
    checks: dict[str, float] = {}
    others = {
        "lm-eval": "lm_eval",
        OURS_SHIPPED: "shipped",
        "ours, arg-max only": "argmax_only",
        LLAMA: "q4_0",
        SHIPPED: "q4_1",
    }
    for name, key in others.items():
        if name not in found or "ours" not in found:
            continue
        theirs = np.array(found[name])
        mine = np.array(found["ours"])[: len(theirs)]
        checks[f"{key}_same_argmax"] = float((mine.argmax(axis=1) == theirs.argmax(axis=1)).mean())
        if name == "lm-eval":
            checks[f"{key}_difference"] = float(np.abs(mine - theirs).max())
    return checks


def groups(full: bool) -> list[Group]:
    """All groups; `full` gives slow peers more texts."""
    more = 4 if full else 1
    return [
        Group(
            "zero-shot",
            (
                ours("zero-shot"),
                ours("zero-shot", name="ours, prefix included", cold=True),
                ours("zero-shot", name=OURS_SHIPPED, shipped=True),
                PEAK,
                peer("decision", "Decision", "zero-shot", 8 * more),
                peer("lm-eval", "LmEval", "zero-shot", 8 * more),
                peer("generate", "Generate", "zero-shot", 8 * more),
                peer("skorch", "Skorch", "zero-shot", 4 * more),
                peer(LLAMA, "LlamaCpp", "zero-shot", TEXTS, requantised=True),
                peer(SHIPPED, "LlamaCpp", "zero-shot", TEXTS),
            ),
            checks=agreement,
        ),
        Group(
            "short-labels",
            (
                ours("short-labels", name="ours, prefix included", cold=True),
                peer("decision", "Decision", "short-labels", 8 * more),
            ),
        ),
        Group(
            "few-shot",
            (
                ours("few-shot"),
                ours("few-shot", 2 * more, name="ours, same texts"),
                PEAK,
                peer("lm-eval", "LmEval", "few-shot", 2 * more),
                peer("generate", "Generate", "few-shot", 2 * more),
            ),
            checks=agreement,
        ),
        Group(
            "banking77",
            (
                ours("banking77"),
                ours("banking77", name="ours, arg-max only", epsilon=1.0),
                PEAK,
                # One text takes minutes.
                peer("lm-eval", "LmEval", "banking77", 1, rounds=3 if full else 1, warm_up=False),
            ),
            checks=agreement,
        ),
    ]
