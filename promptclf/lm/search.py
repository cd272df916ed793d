"""Which nodes of an answer trie are worth feeding to the model: all, or the best first."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptclf.lm.trie import AnswerTrie

Array = NDArray[np.float64]
NEAR = 3.0  # nats below the heaviest open node: fed in the same round, since rounds cost too


class TrieSearch:
    """A best-first search over one trie for several texts, with a certificate.

    The weight of a node, the probability of its tokens, bounds what all answers behind it weigh
    together. So when the open nodes weigh at most epsilon of what the finished answers weigh, no answer
    left open can matter more than that; with an epsilon of 1 or more, the search stops when no open
    node outweighs the best finished answer: the arg-max is then certain, probabilities are not.

    Parameters
    ----------
    rows
        How many texts.
    epsilon
        0 feeds every node, in one round.
    """

    def __init__(self, trie: AnswerTrie, rows: int, epsilon: float) -> None:
        self.trie, self.epsilon = trie, epsilon
        nodes = len(trie.tokens)
        # Log-probability of each predicted token; 0 is the upper bound of one not looked at.
        self.edges: Array = np.zeros((rows, nodes, trie.width))
        self.fed = np.zeros((rows, nodes), dtype=bool)
        self._parents = np.array(trie.parents)
        self._columns = np.array([0, *(trie.children[p][t] for p, t in _edges(trie))])
        self._last = np.array([path[-1][0] for path in trie.paths])
        self._next = {  # the one node behind a node that predicts a single token
            parent: node
            for node, parent in enumerate(trie.parents)
            if node and len(trie.children[parent]) == 1
        }

    def record(self, rows: Any, nodes: Any, logs: Array) -> None:
        """Take in what was predicted at nodes: m x width, for m pairs of row and node."""
        self.edges[rows, nodes] = logs
        self.fed[rows, nodes] = True

    def totals(self) -> Array:
        """Log-likelihoods, rows x answers; upper bounds for answers that were left open."""
        return self.trie.totals(self.edges)

    def wanted(self) -> list[NDArray[np.intp]]:
        """The nodes to feed next, for each row; parents come before children."""
        if not self.epsilon:
            return [np.flatnonzero(~row) for row in self.fed]
        reach = self._reach()
        finished = np.where(self.fed[:, self._last], self.totals(), -np.inf)
        return [self._wanted(*row) for row in zip(reach, self.fed, finished, strict=True)]

    def _wanted(self, reach: Array, fed: NDArray[np.bool_], finished: Array) -> NDArray[np.intp]:
        is_open = ~fed & fed[self._parents]
        nodes = np.flatnonzero(is_open)
        if not len(nodes):
            return nodes
        nodes = nodes[np.argsort(-reach[nodes], kind="stable")]
        weights = reach[nodes]
        if self.epsilon >= 1:
            needed = weights > finished.max()
        else:
            rest = np.logaddexp.accumulate(weights[::-1])[::-1]  # a node and all lighter ones
            needed = rest > np.logaddexp.reduce(finished) + math.log(self.epsilon)
        chosen = nodes[needed & (weights >= weights[0] - NEAR)]
        return np.array(sorted({node for first in chosen for node in self._chain(int(first))}), dtype=np.intp)

    def _chain(self, node: int) -> list[int]:
        """A node and those behind it that cannot be avoided once it is fed."""
        chain = [node]
        while following := self._next.get(chain[-1]):
            chain.append(following)
        return chain

    def _reach(self) -> Array:
        """Log-probability of each node's tokens, rows x nodes; only right where its parent was fed."""
        reach = np.zeros(self.fed.shape)
        for node in range(1, reach.shape[1]):  # parents come first
            parent = self._parents[node]
            reach[:, node] = reach[:, parent] + self.edges[:, parent, self._columns[node]]
        return reach


def _edges(trie: AnswerTrie) -> list[tuple[int, int]]:
    return list(zip(trie.parents[1:], trie.tokens[1:], strict=True))
