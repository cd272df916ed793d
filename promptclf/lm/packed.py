"""Scoring a batch as packed rows: no padding, attention by the cascade."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptclf.lm.attention import attend
from promptclf.lm.cascade import Cascade, Segment
from promptclf.lm.prefix import Ids, Layers
from promptclf.lm.search import TrieSearch
from promptclf.lm.trie import AnswerTrie

Nodes = NDArray[np.intp]


def score_packed(
    model: Any,
    predict: Any,
    suffixes: Sequence[Ids],
    trie: AnswerTrie,
    prefix: Layers | None,
    past: int,
    epsilon: float,
) -> NDArray[np.float64]:
    """Log-likelihoods of the trie's answers behind each text.

    Parameters
    ----------
    model
        A causal language model of ``transformers``.
    predict
        Hidden states (m x size) and their trie nodes -> log-probabilities of what each node predicts.
    suffixes
        The texts' tokens behind the prefix.
    prefix, past
        The prefix's keys and values and its length in tokens.

    Returns
    -------
    Array of shape (texts, answers).
    """
    search = TrieSearch(trie, len(suffixes), epsilon)
    row = _Rows(model, predict, suffixes, trie, Cascade(prefix, keep=epsilon > 0 and len(trie) > 0), past)
    none = np.empty(0, dtype=np.intp)
    everything = np.arange(1, len(trie) + 1)
    row.feed(search, [none if epsilon else everything] * len(suffixes), with_texts=True)
    while any(map(len, wanted := search.wanted())):
        row.feed(search, wanted, with_texts=False)
    return search.totals()


def filled(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in their order, each group within `budget` tokens."""
    batch: list[int] = []
    for index, length in enumerate(lengths):
        if batch and sum(lengths[i] for i in batch) + length > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


class _Rows:
    """The packed rows of some texts, one after the other."""

    def __init__(
        self, model: Any, predict: Any, suffixes: Sequence[Ids], trie: AnswerTrie, plan: Cascade, past: int
    ) -> None:
        self.model, self.predict, self.suffixes = model, predict, suffixes
        self.trie, self.plan, self.past = trie, plan, past
        self.visible = trie.visible()
        self.fed: list[Nodes] = [np.empty(0, dtype=np.intp) for _ in suffixes]

    def feed(self, search: TrieSearch, wanted: Sequence[Nodes], *, with_texts: bool) -> None:
        """Feed chosen nodes of each text (behind the text itself), and record what they predict."""
        ids: list[int] = []
        positions: list[int] = []
        at: list[tuple[int, int, int]] = []  # place in the row, text, node
        self.plan.segments = []
        for text, (suffix, nodes) in enumerate(zip(self.suffixes, wanted, strict=True)):
            start, size = len(ids), len(suffix)
            if with_texts:
                ids += suffix
                positions += range(self.past, self.past + size)
                at.append((len(ids) - 1, text, 0))
            elif not len(nodes):
                continue
            for node in nodes.tolist():
                at.append((len(ids), text, node))
                ids.append(self.trie.tokens[node])
                positions.append(self.past + size - 1 + self.trie.depths[node])
            self.fed[text] = np.concatenate([self.fed[text], nodes])
            mask = self._mask(nodes, text, with_texts) if len(nodes) else None
            self.plan.segments.append(Segment(start, len(ids), text, mask))
        device = self.model.device
        with attend(self.model, self.plan):
            hidden = self.model.base_model(
                input_ids=torch.tensor([ids], device=device),
                position_ids=torch.tensor([positions], device=device),
                use_cache=False,
            ).last_hidden_state[0]
        places, texts, nodes = np.array(at).T
        of = torch.from_numpy(nodes).to(device)
        search.record(texts, nodes, self.predict(hidden[torch.from_numpy(places).to(device)], of))

    def _mask(self, nodes: Nodes, text: int, with_text: bool) -> Tensor:
        """What new tokens attend to: the text up to themselves, and a node's ancestors."""
        size, fed = len(self.suffixes[text]), self.fed[text]
        allowed = torch.ones(len(nodes), size + len(fed), dtype=torch.bool)
        allowed[:, size:] = self.visible[nodes][:, fed]
        if with_text:
            own = torch.ones(size, size + len(fed), dtype=torch.bool).tril()
            allowed = torch.cat([own, allowed])
        mask = torch.zeros(1, 1, *allowed.shape).masked_fill_(~allowed, -torch.inf)
        return mask.to(self.model.device)
