"""Making a model whose weights come from files: on the meta device, where tensors have no values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

T = TypeVar("T")

DRAW = (torch.Tensor.normal_, torch.Tensor.uniform_)


class Unfilled(TorchFunctionMode):
    """While it is entered, nothing is drawn for tensors on the meta device, and counting is done on the CPU.

    Either is done there in Python, for nothing, and has torch import sympy, which takes longer than to load a
    small model. Nobody sees on what device a buffer was first: transformers replaces each that no file has.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, or do without."""
        kwargs = kwargs or {}
        if func in DRAW or getattr(func, "__module__", None) == torch.nn.init.__name__:
            tensor = kwargs["tensor"] if "tensor" in kwargs else args[0]
            if tensor.is_meta:
                return tensor
        if func is torch.arange and str(kwargs.get("device")) == "meta":
            kwargs = {**kwargs, "device": "cpu"}
        return func(*args, **kwargs)


def made_unfilled(load: Callable[[], T]) -> T:
    """What `load` returns, which makes a model while `Unfilled` is entered, or else once more without it."""
    try:
        with Unfilled():
            return load()
    except RuntimeError as error:
        if "meta" not in str(error):
            raise
    return load()  # it combines what it counted, which is on the CPU, with a weight, which is not
