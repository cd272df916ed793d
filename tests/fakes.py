"""A language model that reads keywords: instant, predictable, and it remembers what it was asked."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptclf.errors import TextTooLongError
from promptclf.lm.model import ModelInfo
from promptclf.prompt import Prompt

KEYWORDS = {"invoice": "billing", "parcel": "delivery", "password": "account"}


@dataclass(frozen=True)
class Call:
    """One call of `FakeModel.score`."""

    prompts: tuple[Prompt, ...]
    answers: tuple[str, ...]
    adapter: str | None
    restricted: bool

    @property
    def texts(self) -> list[str]:
        """The prompts as plain text."""
        return [prompt.text for prompt in self.prompts]


class FakeModel:
    """Implements `LanguageModel`: keywords in the text raise the score of their label's words.

    An answer costs 1 nat per word. A keyword in the text to classify adds `strength`, an example that
    shows the answer adds 0.1, and `bias` is added always: a model's leaning, for calibration to find.

    Parameters
    ----------
    keywords
        Keyword (found in any case) -> label words.
    strength
        In nats.
    bias
        Label words -> nats.
    max_tokens
        In white-space separated words.
    """

    def __init__(
        self,
        keywords: Mapping[str, str] = KEYWORDS,
        *,
        strength: float = 2.0,
        bias: Mapping[str, float] | None = None,
        max_tokens: int = 512,
    ) -> None:
        self.keywords = dict(keywords)
        self.strength = strength
        self.bias = dict(bias or {})
        self.max_tokens = max_tokens
        self.info = ModelInfo("fake", "tests", "0" * 40, "none", "none", "cpu", "float32")
        self.calls: list[Call] = []
        self.embedded: list[str] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> FakeModel:
        return self

    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        adapter: str | None = None,
        restricted: bool = False,
        epsilon: float = 0.0,
    ) -> NDArray[np.float64]:
        """Shape (n, k), nats."""
        self.calls.append(Call(tuple(prompts), tuple(answers), adapter, restricted))
        for count in self.count_tokens(prompts):
            if count > self.max_tokens:
                raise TextTooLongError(f"expected at most {self.max_tokens} tokens, got {count}")
        scores = np.array([[self._one(prompt, answer) for answer in answers] for prompt in prompts])
        scores = scores.reshape(len(prompts), len(answers))
        if restricted:
            scores = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return scores

    def embed(self, texts: Sequence[str], *, layer: int | None = None) -> NDArray[np.float32]:
        """Counts of hashed words: shape (n, 32). Texts that share words are near each other."""
        self.embedded.extend(texts)
        vectors = np.zeros((len(texts), 32), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, zlib.crc32(word.encode()) % 32] += 1
        return vectors

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """Words."""
        return [len(prompt.text.split()) for prompt in prompts]

    def tokens(self, prompt: Prompt) -> list[tuple[int, str]]:
        """Words, numbered by a hash."""
        return [(zlib.crc32(word.encode()) % 10_000, word) for word in prompt.text.split()]

    def _one(self, prompt: Prompt, answer: str) -> float:
        words = answer.strip()
        *turns, last = [message.content for message in prompt.messages]
        *blocks, text = last.rstrip("\n").split("\n\n")
        shown = "\n".join([*turns, *blocks])
        score = -float(len(words.split())) + self.bias.get(words, 0.0) + 0.1 * shown.count(answer)
        for keyword, label in self.keywords.items():
            if label == words and keyword in text.lower():
                score += self.strength
        return score
