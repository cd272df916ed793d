"""A model for long work in the background: it lets others in between, and can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from promptclf.errors import PromptClfError
from promptclf.lm.model import LanguageModel
from promptclf.prompt import Prompt

AT_ONCE = 2


class PoliteModel:
    """Passes everything on to `model`, but scores only a few prompts at a time.

    A model serialises its users with one lock, which a call over hundreds of prompts would hold for a
    minute while people wait for a single answer. Who waits for it gets it in the order of asking.
    """

    def __init__(self, model: LanguageModel, stop: threading.Event) -> None:
        self.model, self.stop = model, stop
        self.info, self.max_tokens = model.info, model.max_tokens

    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        adapter: str | None = None,
        restricted: bool = False,
        epsilon: float = 0.0,
    ) -> NDArray[np.float64]:
        """As `LanguageModel.score`; raises PromptClfError once `stop` is set."""
        rows = [np.empty((0, len(answers)))]
        for start in range(0, len(prompts), AT_ONCE):
            if self.stop.is_set():
                raise PromptClfError("the app is closing")
            some = prompts[start : start + AT_ONCE]
            rows.append(
                self.model.score(some, answers, adapter=adapter, restricted=restricted, epsilon=epsilon)
            )
        return np.concatenate(rows)

    def embed(self, texts: Sequence[str], *, layer: int | None = None) -> NDArray[np.float32]:
        """As `LanguageModel.embed`."""
        return self.model.embed(texts, layer=layer)

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """As `LanguageModel.count_tokens`."""
        return self.model.count_tokens(prompts)

    def tokens(self, prompt: Prompt) -> list[tuple[int, str]]:
        """As `LanguageModel.tokens`."""
        return self.model.tokens(prompt)
