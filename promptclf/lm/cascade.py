"""Attention for many texts packed into one row, behind a prefix that they share.

Every text attends to its own tokens and to the prefix, never to another text. The two parts are computed
apart and merged by their log-sum-exps, which is exact (the cascade of Ye et al. 2024, FlashInfer): the
prefix is read once for all texts, and never copied for each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from promptclf.lm.attention import UnsupportedError
from promptclf.lm.prefix import Layers


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
class Cascade:
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

    def attention(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
        dropout: float,
    ) -> Tensor:
        """See `promptclf.lm.attention.Plan`."""
        if dropout:
            raise UnsupportedError("dropout")
        parts = [self._within(segment, layer, query, key, value, scaling) for segment in self.segments]
        out, weight = (torch.cat(some, 2) for some in zip(*parts, strict=True))
        if self.prefix is None:
            return out
        keys, values = (t.transpose(0, 1) for t in self.prefix[layer])  # groups x 1 x n x size
        # To the prefix, the heads of a group are but more tokens.
        folded = query.reshape(len(query), 1, -1, query.shape[-1])
        before, before_weight = _flash(folded, keys, values, scaling)
        share = torch.sigmoid(weight - before_weight.view_as(weight)).to(out.dtype)
        return torch.lerp(before.view_as(out), out, share[..., None])

    def _within(
        self,
        segment: Segment,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
    ) -> tuple[Tensor, Tensor]:
        """The new tokens of one text over its tokens so far: output and log-sum-exp."""
        query, key, value = (t[:, :, segment.start : segment.stop] for t in (query, key, value))
        if self.keep:
            if past := self.kept.get((layer, segment.text)):
                key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
            self.kept[layer, segment.text] = key, value
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
