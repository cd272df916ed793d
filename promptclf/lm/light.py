"""Importing libraries without what they bring along and nobody needs here."""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial, wraps
from types import ModuleType
from typing import Any, cast
from unittest import mock

from promptclf.quiet import quiet_logs

logger = logging.getLogger(__name__)

_removing = threading.Lock()

STATISTICS = "scipy.stats"
TRACING = "torch._dynamo._trace_wrapped_higher_order_op"


def import_to_predict() -> None:
    """Import transformers and PEFT without what they bring along to train, compile and see; in half the time.

    That is torch's compiler and distributed tensors, SciPy and torchvision. For a process that predicts and
    does nothing else: until it ends, functions of transformers have no marks for the compiler, no model can
    be spread over devices, and transformers takes SciPy and torchvision for not installed. All four can
    themselves be imported afterwards. Where this does not fit the versions that are installed, whoever needs
    the libraries imports the rest of them.
    """
    if not {"transformers", "peft", "torch._dynamo"}.isdisjoint(sys.modules):
        return
    import torch.distributed  # noqa: F401  before anything stands in for a part of it

    with (
        _instead({"torch._dynamo": _no_compiler(), TRACING: _tracing(), "scipy": None, "torchvision": None}),
        mock.patch("torch.distributed.is_available", return_value=False),
    ):
        try:
            from transformers import LlamaForCausalLM  # noqa: F401

            prepare_peft()
            import peft  # noqa: F401
        except Exception as error:
            logger.info("libraries are imported whole: %s", error.__cause__ or error)


def import_sklearn() -> None:
    """Import what scikit-learn's estimators stand on without scipy.stats, which takes most of the time.

    One function there uses it, and finds it in ``scipy`` when it is called. Whoever else imports it at the
    same moment gets it, or a module that passes everything on to it.
    """
    if "sklearn" in sys.modules:
        return
    with _instead({STATISTICS: _when_used(STATISTICS)}):
        import sklearn.base  # noqa: F401


@contextmanager
def _instead(modules: dict[str, ModuleType | None]) -> Iterator[None]:
    """Meanwhile, importing one of these that is not yet imported gives another module, or (None) fails."""
    modules = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(modules)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name, module in modules.items():
            _remove(name, module)


def _remove(name: str, module: ModuleType | None) -> None:
    """Forget a module, unless another has taken its place."""
    with _removing:
        if sys.modules.get(name) is module:
            sys.modules.pop(name, None)


def _when_used(name: str) -> ModuleType:
    """Stands in for a module, which is imported when something in it is used."""
    module: Any = ModuleType(name)

    def real(attribute: str) -> Any:
        _remove(name, module)
        return getattr(importlib.import_module(name), attribute)

    module.__getattr__ = real
    return cast(ModuleType, module)


def _no_compiler() -> Any:
    """Stands in for torch._dynamo: decorators that mark functions for it, and here do nothing."""

    def mark(function: Any = None, *_: Any, **__: Any) -> Any:
        return (lambda marked: marked) if function is None else function

    module: Any = ModuleType("torch._dynamo")
    module.disable = module.allow_in_graph = module.assume_constant_result = mark
    return module


def _tracing() -> Any:
    """Stands in for the one file of it that transformers imports, until something in it is used."""

    def real() -> Any:
        from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex

        return TransformGetItemToIndex()

    module: Any = ModuleType(TRACING)
    module.TransformGetItemToIndex = real
    return module


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
        with quiet_logs():
            import bitsandbytes  # noqa: F401
    except Exception:  # it does not fit this machine: PEFT does without it, or says so itself
        sys.modules.pop("bitsandbytes", None)
    finally:
        torch.compile = compile_now
