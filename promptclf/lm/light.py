"""Importing PEFT without what it brings along and nobody needs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, partial, wraps
from typing import Any


def prepare_peft() -> None:
    """Import bitsandbytes, as PEFT does, without the compiler of torch, which takes two seconds.

    bitsandbytes has some functions compiled at its import. Here they are when they are first called, which
    is where a quantised model computes with them.
    """
    if "bitsandbytes" in sys.modules:
        return
    import torch

    compile_now = torch.compile

    def compile_later(function: Any = None, **options: Any) -> Callable[..., Any]:
        if function is None:
            return partial(compile_later, **options)

        @cache
        def compiled() -> Callable[..., Any]:
            return compile_now(function, **options)

        @wraps(function)
        def call(*args: Any, **keywords: Any) -> Any:
            return compiled()(*args, **keywords)

        return call

    torch.compile = compile_later  # type: ignore[assignment]
    try:
        import bitsandbytes  # noqa: F401
    except Exception:  # it does not fit this machine: PEFT does without it, or says so itself
        sys.modules.pop("bitsandbytes", None)
    finally:
        torch.compile = compile_now
