"""What training minimises: the negative log-likelihood of each row's answer tokens.

A batch is packed into one row without padding. The tokens that all its rows begin with stand in it once,
with gradients through them, and every row attends to them and to itself. Models on which packing does not
hold get padded rows, which give the same losses. The output head runs on the answers' positions only.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from promptclf.lm.attention import attend, tolerance, window
from promptclf.lm.head import Head
from promptclf.lm.packed import filled
from promptclf.lm.prefix import MIN_PREFIX, common_length

logger = logging.getLogger(__name__)

Batch = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Row:
    """One training text.

    `ids` is prompt and answer, `answer` the number of answer tokens at its end, `weight` how much
    the row counts, `rivals` (for the restricted loss) the tokens that could stand at each of them.
    """

    ids: list[int]
    answer: int
    weight: float = 1.0
    rivals: tuple[tuple[int, ...], ...] | None = None


class AnswerLoss(torch.nn.Module):
    """Negative log-likelihood of each row's answer tokens."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module, self.head = module, Head(module)

    def forward(
        self,
        ids: Tensor,
        positions: Tensor,
        starts: Tensor,
        at: Tensor,
        rows: Tensor,
        targets: Tensor,
        rivals: Tensor,
    ) -> Tensor:
        """Sum per row, shape (rows,).

        `ids`, `positions` and `starts` are as `pack` or `pad` lays them out. `at` says in which places
        of `ids`, counted row by row, an answer token is predicted, `rows` of which row, and `targets`
        which token it is; `rivals` (tokens x width, -1 for none) restricts the softmax where its width
        is not 0.
        """
        hidden = self._states(ids, positions, starts).flatten(0, 1)[at]
        logits = self.head(hidden)
        if rivals.shape[1]:
            total = logits.gather(1, rivals.clamp(min=0)).masked_fill(rivals < 0, -torch.inf).logsumexp(-1)
            nll = total - logits.gather(1, targets[:, None])[:, 0]
        else:
            nll = cross_entropy(logits, targets, reduction="none")  # goes over the logits fewer times
        summed: Tensor = nll.new_zeros(int(rows[-1]) + 1).index_add(0, rows, nll)
        return summed

    def _states(self, ids: Tensor, positions: Tensor, starts: Tensor) -> Tensor:
        if not len(starts):
            # Right padding needs no mask: causal attention never looks at it.
            return self.module.base_model(input_ids=ids, use_cache=False).last_hidden_state  # type: ignore[no-any-return]
        with attend(self.module, Packing(starts.tolist())):
            return self.module.base_model(  # type: ignore[no-any-return]
                input_ids=ids, position_ids=positions, use_cache=False
            ).last_hidden_state


@dataclass
class Packing:
    """The attention of a packed training row.

    Parameters
    ----------
    starts
        Where in the row each text starts, and where the last one ends; before the first stands what all
        texts attend to.
    layers
        Which layers have attended to this plan.
    """

    starts: list[int]
    layers: set[int] = field(default_factory=set)
    _masks: dict[int, Tensor] = field(default_factory=dict)

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
        heads, prefix = query.shape[1], self.starts[0]
        key, value = (t.expand(-1, heads, -1, -1) for t in (key, value))

        def within(start: int, stop: int) -> Tensor:
            keys, values = key[:, :, start:stop], value[:, :, start:stop]
            behind = start and prefix
            if behind:
                keys = torch.cat([key[:, :, :prefix], keys], 2)
                values = torch.cat([value[:, :, :prefix], values], 2)
            mask = self._mask(stop - start, query) if behind else None
            return scaled_dot_product_attention(
                query[:, :, start:stop], keys, values, mask, dropout, is_causal=mask is None, scale=scaling
            )

        edges = [0, *self.starts] if prefix else self.starts
        return torch.cat([within(*edge) for edge in pairwise(edges)], 2)

    def _mask(self, size: int, like: Tensor) -> Tensor:
        """All of the prefix and a text up to itself (size x prefix + size; added to the logits)."""
        if size not in self._masks:
            hidden = like.new_full((size, size), -torch.inf).triu(1)
            self._masks[size] = torch.cat([like.new_zeros(size, self.starts[0]), hidden], 1)
        return self._masks[size]


def pack(rows: Sequence[Row]) -> tuple[Batch, list[int]]:
    """One row of all texts behind what they share, and where in it each text's last token stands."""
    shared = _shared(rows)
    ids, positions, starts = rows[0].ids[:shared], [*range(shared)], [shared]
    for row in rows:
        ids = [*ids, *row.ids[shared:-1]]
        positions += range(shared, len(row.ids) - 1)
        starts.append(len(ids))
    laid = {
        "ids": torch.tensor([ids]),
        "positions": torch.tensor([positions]),
        "starts": torch.tensor(starts),
    }
    return laid, [start - 1 for start in starts[1:]]


def _shared(rows: Sequence[Row]) -> int:
    """How many tokens all rows begin with, before the first that predicts an answer of any."""
    shared = min(common_length([row.ids for row in rows]), *(len(row.ids) - row.answer - 1 for row in rows))
    return shared if shared >= MIN_PREFIX and len(rows) > 1 else 0


def pad(rows: Sequence[Row]) -> tuple[Batch, list[int]]:
    """A row for each text, filled up on the right, and where in them its last token stands."""
    width = max(len(row.ids) for row in rows) - 1
    ids = torch.tensor([row.ids[:-1] + [0] * (width + 1 - len(row.ids)) for row in rows])
    none = torch.empty(0, dtype=torch.long)
    return {"ids": ids, "positions": none, "starts": none}, [
        n * width + len(row.ids) - 2 for n, row in enumerate(rows)
    ]


def collate(batch: Sequence[tuple[Row, float]], budget: int, packed: bool = True) -> list[Batch]:
    """Cut rows, each with its share of the loss, into parts that hold at most `budget` tokens.

    A longer row is a part of its own, and what rows share may fill but half of a part, since every part
    computes it again. Each part is the arguments of `AnswerLoss` and "shares".
    """
    counting = [entry for entry in batch if entry[1]] or list(batch[:1])  # the others have no gradient
    rows = [row for row, _ in counting]
    if packed:
        shared = _shared(rows)
        sizes, budget = [len(row.ids) - shared for row in rows], max(budget - shared, budget // 2)
    else:
        sizes = [max(len(row.ids) for row in rows)] * len(rows)
    return [_part([counting[n] for n in group], packed) for group in filled(sizes, budget)]


def _part(batch: Sequence[tuple[Row, float]], packed: bool) -> Batch:
    rows = [row for row, _ in batch]
    laid, ends = (pack if packed else pad)(rows)
    answers = [row.answer for row in rows]
    rivals = [tokens for row in rows for tokens in row.rivals or ()]
    table = torch.full((sum(answers), max(map(len, rivals), default=0)), -1)
    for n, tokens in enumerate(rivals):
        table[n, : len(tokens)] = torch.tensor(tokens)
    places = [end - n for end, many in zip(ends, answers, strict=True) for n in reversed(range(many))]
    return {
        **laid,
        "at": torch.tensor(places),
        "rows": torch.arange(len(rows)).repeat_interleave(torch.tensor(answers)),
        "targets": torch.tensor([token for row in rows for token in row.ids[len(row.ids) - row.answer :]]),
        "rivals": table,
        "shares": torch.tensor([share for _, share in batch]),
    }


_packing: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()  # what `packs` found out about each model


def packs(module: Any, longest: int) -> bool:
    """Whether packed rows of up to `longest` tokens give this model's padded losses, tried on a few."""
    if longest > window(module):
        return False
    if module not in _packing:
        _packing[module] = _agrees(module)
    return _packing[module]


@torch.no_grad()
def _agrees(module: Any) -> bool:
    size = module.config.get_text_config().vocab_size
    some = [1 + (7 * i) % (size - 1) for i in range(MIN_PREFIX + 12)]
    rows = [Row([*some[: MIN_PREFIX + 1], *some[-n:]], 2) for n in (3, 5, 8)]
    loss, found = AnswerLoss(module), []
    try:
        for packed in (True, False):
            (part,) = collate([(row, 1.0) for row in rows], budget=10**6, packed=packed)
            del part["shares"]
            found.append(loss(**{key: value.to(module.device) for key, value in part.items()}))
    except Exception as error:  # whatever a model does not support, padded rows do
        logger.debug("packed rows failed: %r", error)
        return False
    packed, padded = found
    limit = tolerance(module, float(padded.max() - padded.min()))
    return bool((packed - padded).abs().max() <= limit)
