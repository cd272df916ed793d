"""The token trie of a set of answers: what has to be fed and predicted to score them all at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


class AnswerTrie:
    """The answers' tokens as a trie; node 0 is the prompt's last token, leaves are not fed.

    Attributes
    ----------
    tokens, parents, depths : list of int
        One entry per fed node, parents before children; entry 0 stands for the prompt.
    branches : list of int
        Per node: the column at node 0 through which it is reached (-1 for node 0).
    children : list of dict
        Per node: token -> column of that token in the node's row of predicted tokens.
    paths : list of list of (node, column)
        Per answer: where its tokens are predicted.
    """

    def __init__(self, answers: Sequence[Sequence[int]]) -> None:
        self.tokens, self.parents, self.depths, self.branches = [-1], [-1], [0], [-1]
        self.children: list[dict[int, int]] = [{}]
        self.paths: list[list[tuple[int, int]]] = []
        nodes: dict[tuple[int, ...], int] = {(): 0}
        leaves = {tuple(answer) for answer in answers}
        for answer in map(tuple, answers):
            path: list[tuple[int, int]] = []
            for i, token in enumerate(answer):
                node = nodes.get(answer[:i])
                if node is None:
                    node = nodes[answer[:i]] = len(self.tokens)
                    self.tokens.append(answer[i - 1])
                    self.parents.append(nodes[answer[: i - 1]])
                    self.depths.append(i)
                    self.branches.append(path[0][1])
                    self.children.append({})
                path.append((node, self.children[node].setdefault(token, len(self.children[node]))))
            self.paths.append(path)
        if len(leaves) < len(answers) or not leaves.isdisjoint(nodes):
            raise ValueError("an answer equals or begins another; add an end marker")
        self.width = max(map(len, self.children))

    def __len__(self) -> int:
        """How many tokens are fed behind the prompt."""
        return len(self.tokens) - 1

    def visible(self) -> Tensor:
        """Which nodes each node attends to: itself and its ancestors but node 0 (all x all, bool)."""
        mask = torch.zeros(len(self.tokens), len(self.tokens), dtype=torch.bool)
        for node in range(1, len(self.tokens)):
            mask[node] = mask[self.parents[node]]
            mask[node, node] = True
        return mask

    def predicted(self) -> tuple[Tensor, Tensor]:
        """The tokens to predict at each node (nodes x width) and which of them are real."""
        tokens = torch.zeros(len(self.children), self.width, dtype=torch.long)
        for node, children in enumerate(self.children):
            tokens[node, : len(children)] = torch.tensor(list(children))
        counts = torch.tensor([len(children) for children in self.children])
        return tokens, torch.arange(self.width) < counts[:, None]

    def totals(self, edges: Array) -> Array:
        """Sum token log-probabilities (rows x nodes x width) along each answer's path."""
        return np.stack([sum(edges[:, node, column] for node, column in path) for path in self.paths], axis=1)
