"""The seam through which packed rows reach a model's attention.

A packed row holds the tokens of many texts side by side, without padding. How its tokens attend to each
other is told by a `Plan`, valid while `attend` is open; it reaches the model through the
AttentionInterface of ``transformers``, and no model code is touched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import AttentionInterface

# What models call the length of their windows; GPT-Neo's is "window_size".
WINDOWS = ("sliding_window", "window_size", "attention_window_size", "attention_chunk_size")
NAME = "promptclf_packed"  # unknown to the mask builders of transformers: none is built


class Plan(Protocol):
    """What a packed row holds.

    `layers` collects which layers have attended as planned.
    """

    layers: set[int]

    def attention(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
        dropout: float,
    ) -> Tensor:
        """The output of one layer's attention, shaped as `query`.

        The tensors are groups x heads x tokens x size. Query heads that share a key head stand side by
        side, so that no key has to be repeated: `key` and `value` have one head per group.
        """


class UnsupportedError(Exception):
    """The model's attention does something that packed rows do not."""


_plan: ContextVar[Plan] = ContextVar("plan")
_known_configs: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()


@contextmanager
def attend(model: Any, plan: Plan) -> Iterator[None]:
    """While open, the model's forward pass attends as `plan` says. The caller holds the model's lock."""
    before = [(config, config._attn_implementation) for config in _configs(model.base_model)]
    token = _plan.set(plan)
    try:
        for config, _ in before:  # set_attn_implementation would look for hub kernels of this name
            config._attn_implementation_internal = NAME
        yield
        if len(plan.layers) != model.config.get_text_config().num_hidden_layers:
            raise UnsupportedError(f"{type(model).__name__} has layers that attend in another way")
    finally:
        for config, name in before:
            config._attn_implementation_internal = name
        _plan.reset(token)


def _configs(model: Any) -> list[Any]:
    """The configurations that a model's layers look at; to ask all modules takes as long as a few tokens."""
    if model not in _known_configs:
        of_modules = (module.config for module in model.modules() if hasattr(module, "config"))
        _known_configs[model] = list({id(config): config for config in of_modules}.values())
    return _known_configs[model]


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """The attention of one layer over a packed row; query, key and value are 1 x heads x tokens x size."""
    rows, heads, count, size = query.shape
    if rows != 1 or attention_mask is not None or options.get("softcap") or options.get("s_aux") is not None:
        raise UnsupportedError(type(module).__name__)
    plan, groups = _plan.get(), key.shape[1]
    plan.layers.add(module.layer_idx)
    query, key, value = (t.reshape(groups, -1, count, size) for t in (query, key, value))
    out = plan.attention(module.layer_idx, query, key, value, scaling, dropout)
    return out.reshape(1, heads, count, size).transpose(1, 2).contiguous(), None


def window(model: Any) -> float:
    """How many tokens back every layer of a model attends at least; infinity where all are seen."""
    config = model.config.get_text_config()
    return min((size for name in WINDOWS if (size := getattr(config, name, None))), default=math.inf)


def tolerance(model: Any, signal: float) -> float:
    """How far two ways to compute log-likelihoods may lie apart and still agree, in nats.

    What is right within the rounding of the model differs by far less than two texts do: by `signal`.
    """
    if getattr(model, "is_loaded_in_8bit", False):  # a text is rounded by what its neighbours hold, too
        return max(0.1 * signal, 0.05)
    if model.dtype == torch.float32:
        return min(max(0.02 * signal, 2e-5), 1e-3)
    return min(max(0.1 * signal, 0.05), 0.5)


AttentionInterface.register(NAME, packed_attention)
