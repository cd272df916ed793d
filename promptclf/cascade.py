"""Attention for many texts packed into one row, behind a prefix that they share.

A packed row holds no padding: every text attends to its own tokens and to the prefix, never to another
text. The two parts are computed apart and merged by their log-sum-exps, which is exact (the cascade of
Ye et al. 2024, FlashInfer): the prefix is read once for all texts, and never copied for each.

The attention reaches the model through the AttentionInterface of ``transformers``; no model code is
touched. What the row holds is told by a `Plan`, valid while `attend` is open.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from promptclf.prefix import Layers

NAME = "promptclf_cascade"  # unknown to the mask builders of transformers: none is built


@dataclass(frozen=True, slots=True)
class Segment:
    """The tokens `start` to `stop` of a packed row: new ones of the text number `text`.

    `mask` (1 x 1 x new x old and new; added to the attention's logits) says what they attend to
    within the text; None is causal, for a text whose first tokens these are.
    """

    start: int
    stop: int
    text: int
    mask: Tensor | None = None


@dataclass
class Plan:
    """What a packed row holds, and the keys and values kept of its texts for rows to come.

    Parameters
    ----------
    prefix
        Keys and values that every text attends to, one pair per layer.
    keep
        Whether later rows go on with these texts.
    layers
        Which layers have attended to this plan.
    """

    prefix: Layers | None
    keep: bool = False
    segments: list[Segment] = field(default_factory=list)
    layers: set[int] = field(default_factory=set)
    kept: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)


class UnsupportedError(Exception):
    """The model's attention does something that the cascade does not."""


_plan: ContextVar[Plan] = ContextVar("plan")


@contextmanager
def attend(model: Any, plan: Plan) -> Iterator[None]:
    """While open, the model's forward pass attends as `plan` says. The caller holds the model's lock."""
    configs = {id(m.config): m.config for m in model.base_model.modules() if hasattr(m, "config")}
    before = [(config, config._attn_implementation) for config in configs.values()]
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


def cascade(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """The attention of one layer over a packed row; query, key and value are 1 x heads x n x size."""
    rows, heads, count, size = query.shape
    if rows != 1 or attention_mask is not None or dropout or options.get("softcap") or options.get("s_aux"):
        raise UnsupportedError(type(module).__name__)
    plan, layer = _plan.get(), module.layer_idx
    plan.layers.add(layer)
    groups = key.shape[1]
    # Query heads that share a key head stand side by side: no key is repeated.
    query, key, value = (t.reshape(groups, -1, count, size) for t in (query, key, value))
    parts = [_within(plan, segment, layer, query, key, value, scaling) for segment in plan.segments]
    out, weight = (torch.cat(some, 2) for some in zip(*parts, strict=True))
    if plan.prefix is not None:
        keys, values = (t.transpose(0, 1) for t in plan.prefix[layer])  # groups x 1 x n x size
        before, before_weight = _flash(query.reshape(groups, 1, -1, size), keys, values, scaling)
        share = torch.sigmoid(weight - before_weight.view_as(weight)).to(out.dtype)
        out = torch.lerp(before.view_as(out), out, share[..., None])
    return out.reshape(1, heads, count, size).transpose(1, 2).contiguous(), None


def _within(
    plan: Plan, segment: Segment, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
) -> tuple[Tensor, Tensor]:
    """The new tokens of one text over its tokens so far: output and log-sum-exp."""
    query, key, value = (t[:, :, segment.start : segment.stop] for t in (query, key, value))
    if plan.keep:
        if past := plan.kept.get((layer, segment.text)):
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        plan.kept[layer, segment.text] = key, value
    mask = None if segment.mask is None else segment.mask.to(query.dtype)
    return _flash(query, key, value, scaling, causal=mask is None, mask=mask)


def _flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    causal: bool = False,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of torch that also returns the log-sum-exp of its logits (groups x heads x n)."""
    key, value = (t.expand(-1, query.shape[1], -1, -1) for t in (key, value))
    out, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, attn_mask=mask, scale=scaling
    )
    return out, weight


AttentionInterface.register(NAME, cascade)
