"""What is different on a Hugging Face Space: a disk that forgets, and on ZeroGPU a GPU by the call.

On ZeroGPU the server has no GPU; it only looks as if there was one. A function given to ``spaces.GPU``
runs in a forked process that has one, for as long as its caller's quota allows. Three things follow:
weights and adapters must be in place, in the main thread, before the server starts (`promptclf.ui.space`
sees to it); arguments and results are pickled; and an exception arrives as the name of its class, so
errors travel as values. The package ``spaces`` is there on every Gradio Space and needed nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr

from promptclf.errors import PromptClfError
from promptclf.lm.embedded import home
from promptclf.lm.lock import FairLock
from promptclf.lm.model import HFModel

# A call asks for as long as it may take at worst; visitors wait for what it asks beyond that.
SHORTEST, LONGEST = 10, 120  # seconds; 120 is a day's quota of a visitor without an account
CHARACTERS_PER_TOKEN = 2  # English has about 4, Chinese between 1 and 2
OPERATIONS_PER_SECOND = 1e13  # a small share of what the card can do: batches are small
BYTES_PER_SECOND = 1e9  # the weights are moved to the card first


def on_space() -> bool:
    """Whether this runs on a Hugging Face Space."""
    return bool(os.environ.get("SPACE_ID"))


def on_zero_gpu() -> bool:
    """Whether this runs on a ZeroGPU Space: the package ``spaces`` reads the same variable."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def feedback_is_lost() -> bool:
    """Whether what visitors store is gone after a restart: on a Space, unless a volume holds the home."""
    place = home().resolve()
    return on_space() and not any(os.path.ismount(folder) for folder in [place, *place.parents][:-1])


def lend_gpu(model: HFModel, gpu: Callable[..., Any]) -> HFModel:
    """Have a model's `score` and `embed` run on a borrowed GPU; returns the model.

    Parameters
    ----------
    model
        It is changed in place.
    gpu
        ``spaces.GPU``.
    """
    weights = sum(parameter.numel() for parameter in model.module.parameters())

    def to_score(prompts: Any, answers: Any, **options: Any) -> int:
        tried = sum(map(len, answers))
        return seconds_for(sum(len(prompt.text) + tried for prompt in prompts), weights)

    def to_embed(texts: Any, **options: Any) -> int:
        return seconds_for(sum(map(len, texts)), weights)

    # The methods of this one object: what asks whether it is an `HFModel` must find one.
    vars(model).update(
        score=_borrowing(model.score, gpu, to_score), embed=_borrowing(model.embed, gpu, to_embed)
    )
    # Another thread may hold the lock at the moment of a fork, and would never let the copy go.
    os.register_at_fork(after_in_child=lambda: setattr(model, "lock", FairLock()))
    return model


def seconds_for(characters: int, weights: int) -> int:
    """How long to ask for a GPU: two operations a weight and token, and the move of 16-bit weights."""
    operations = 2 * weights * characters / CHARACTERS_PER_TOKEN
    seconds = operations / OPERATIONS_PER_SECOND + 2 * weights / BYTES_PER_SECOND
    return round(min(LONGEST, SHORTEST + seconds))


def _borrowing(
    method: Callable[..., Any], gpu: Callable[..., Any], seconds: Callable[..., int]
) -> Callable[..., Any]:
    """A method that runs on a borrowed GPU; errors meant for the user come back as what they are."""

    def work(*args: Any, **options: Any) -> tuple[Any, PromptClfError | None]:
        try:
            return method(*args, **options), None
        except PromptClfError as error:
            return None, error

    lent = gpu(work, duration=seconds)

    @wraps(method)
    def call(*args: Any, **options: Any) -> Any:
        try:
            result, error = lent(*args, **options)
        except gr.Error as refused:  # no quota left, no GPU free, or the time was up
            raise PromptClfError(f"ZeroGPU: {refused.message!s}") from refused
        if error is not None:
            raise error
        return result

    return call
