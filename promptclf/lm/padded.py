"""Scoring a batch as padded rows, with the attention that the model itself brings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from promptclf.lm.prefix import CACHE, Ids, Layers
from promptclf.lm.search import TrieSearch
from promptclf.lm.trie import AnswerTrie

Predict = Callable[[Tensor, Tensor], NDArray[np.float64]]


def score_padded(
    model: Any,
    predict: Predict,
    suffixes: Sequence[Ids],
    trie: AnswerTrie,
    prefix: Layers | None,
    past: int,
    epsilon: float,
    pad_id: int,
    batch_tokens: int,
) -> NDArray[np.float64]:
    """Log-likelihoods of the trie's answers behind each text; see `promptclf.lm.packed.score_packed`.

    First the texts alone, then trie nodes behind them, whose attention mask lets a node see exactly
    the text and its own ancestors. `batch_tokens` bounds the padded nodes of one pass.
    """
    search = TrieSearch(trie, len(suffixes), epsilon)
    texts = _Texts(model, predict, suffixes, trie, prefix, past, pad_id)
    search.record(np.arange(len(suffixes)), 0, texts.first())
    while any(map(len, wanted := search.wanted())):
        # What was fed for a node is not kept, so its ancestors are fed again.
        nodes = [texts.with_ancestors(some) for some in wanted]
        for rows in batches([len(some) for some in nodes], batch_tokens):
            if rows := [row for row in rows if len(nodes[row])]:
                search.record(*texts.feed(rows, [nodes[row] for row in rows]))
    return search.totals()


class _Texts:
    """Padded texts whose keys and values are kept for the trie nodes behind them."""

    def __init__(
        self,
        model: Any,
        predict: Predict,
        suffixes: Sequence[Ids],
        trie: AnswerTrie,
        prefix: Layers | None,
        past: int,
        pad_id: int,
    ) -> None:
        self.model, self.predict, self.trie, self.prefix, self.past = model, predict, trie, prefix, past
        self.ids, self.lengths = pad(suffixes, pad_id, model.device)
        self.device, (self.rows, width) = self.ids.device, self.ids.shape
        self.real = torch.arange(width, device=self.device) < self.lengths[:, None]
        self.visible = trie.visible()

    def first(self) -> NDArray[np.float64]:
        """Feed the texts; log-probabilities of the answers' first tokens (rows x width)."""
        rows, width = self.ids.shape
        positions = self.past + torch.arange(width, device=self.device).expand(rows, -1)
        # Without a prefix no mask is needed: right padding is invisible to causal attention.
        mask = (
            None
            if self.prefix is None
            else torch.cat([self.real.new_ones(rows, self.past), self.real], 1).long()
        )
        out = body(self.model, self.ids, positions, self.prefix, mask, keep=len(self.trie) > 0)
        if len(self.trie):
            self.layers = [(layer.keys, layer.values) for layer in out[CACHE].layers]
        last = out.last_hidden_state[torch.arange(rows, device=self.device), self.lengths - 1]
        return self.predict(last, torch.zeros(rows, dtype=torch.long, device=self.device))

    def with_ancestors(self, nodes: NDArray[np.intp]) -> NDArray[np.intp]:
        """Nodes and what leads to them, parents first."""
        return np.flatnonzero(self.visible[nodes].any(0).numpy())

    def feed(
        self, rows: list[int], nodes: list[NDArray[np.intp]]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
        """Feed nodes behind some rows: rows, nodes, and what each predicts."""
        index = torch.tensor(rows, device=self.device)
        chosen = torch.zeros(len(rows), max(map(len, nodes)), dtype=torch.long)  # 0: padding
        for i, some in enumerate(nodes):
            chosen[i, : len(some)] = torch.from_numpy(some)
        mask = self._mask(chosen, index)
        chosen = chosen.to(self.device)
        tokens = torch.tensor(self.trie.tokens, device=self.device).clamp(min=0)[chosen]
        depths = torch.tensor(self.trie.depths, device=self.device)[chosen]
        positions = self.past + self.lengths[index][:, None] - 1 + depths
        whole = rows == list(range(self.rows))
        layers = self.layers if whole else [(k[index], v[index]) for k, v in self.layers]
        hidden = body(self.model, tokens, positions, layers, mask, keep=True).last_hidden_state
        real = chosen > 0
        at = index[:, None].expand_as(chosen)[real].cpu().numpy()
        return at, chosen[real].cpu().numpy(), self.predict(hidden[real], chosen[real])

    def _mask(self, chosen: Tensor, index: Tensor) -> Tensor:
        """Rows x 1 x nodes x keys, where attention is allowed; keys are prefix, text, nodes."""
        rows, count = chosen.shape
        own = self.visible[chosen[:, :, None], chosen[:, None, :]].to(self.device)
        # Padding sees itself, since a row without any key has no softmax.
        own |= torch.eye(count, dtype=torch.bool, device=self.device)
        text = self.real[index][:, None].expand(-1, count, -1)
        prefix = text.new_ones(rows, count, self.past)
        allowed = torch.cat([prefix, text, own], 2)[:, None]
        if self.model.config.get_text_config()._attn_implementation != "eager":
            return allowed
        kind = self.model.dtype  # the eager attention of transformers adds its mask
        return torch.zeros(allowed.shape, dtype=kind, device=self.device).masked_fill_(
            ~allowed, torch.finfo(kind).min
        )


def body(
    model: Any, ids: Tensor, positions: Tensor, past: Layers | None, mask: Tensor | None, keep: bool
) -> Any:
    """The model without its head, behind kept keys and values."""
    inputs: dict[str, Any] = {"use_cache": keep or past is not None, "attention_mask": mask}
    if past is not None:
        inputs[CACHE] = cache = DynamicCache()
        for keys, values in past:
            layer = DynamicLayer()  # a sliding layer would not know how long the past is
            layer.lazy_initialization(keys, values)
            # Expanding copies nothing; the cache copies when it grows, and ours stays as it is.
            layer.keys, layer.values = (t.expand(len(ids), -1, -1, -1) for t in (keys, values))
            cache.layers.append(layer)
    return model.base_model(input_ids=ids, position_ids=positions, **inputs)


def pad(sequences: Sequence[Ids], pad_id: int, device: Any) -> tuple[Tensor, Tensor]:
    """Ids padded on the right (rows x width), and the true lengths."""
    lengths = torch.tensor([len(s) for s in sequences])
    ids = torch.full((len(sequences), int(lengths.max())), pad_id)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
    return ids.to(device), lengths.to(device)


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices grouped by similar length, each group within `budget` padded tokens."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[index] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
