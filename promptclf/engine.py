"""The scoring engine: the log-likelihood of every answer after every prompt.

Three things make it fast and none changes the result: the longest common token prefix of the prompts
is computed once and its keys and values are kept; the rest is batched by length; and all answers are
scored in the same pass as a token trie behind each prompt, whose attention mask lets a node see
exactly the prompt and its own ancestors. The output head runs only where an answer token is predicted.

`score_plainly` does the same with one plain forward pass per prompt and answer. It is the reference
that tests compare with, and the fallback for models on which the trie does not hold.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

logger = logging.getLogger(__name__)

Ids = Sequence[int]
MIN_PREFIX = 8  # shorter prefixes cost more to attach than to compute again
PREFIX_BYTES = 256 * 2**20
HEAD_ROWS = 128  # rows of full-vocabulary logits held at once


class AnswerTrie:
    """The answers' tokens as a trie; node 0 is the prompt's last token, leaves are not fed.

    Attributes
    ----------
    tokens, parents, depths : list of int
        One entry per fed node, parents before children; entry 0 stands for the prompt.
    children : list of dict
        Per node: token -> column of that token in the node's row of predicted tokens.
    paths : list of list of (node, column)
        Per answer: where its tokens are predicted.
    """

    def __init__(self, answers: Sequence[Ids]) -> None:
        self.tokens, self.parents, self.depths = [-1], [-1], [0]
        self.children: list[dict[int, int]] = [{}]
        self.paths: list[list[tuple[int, int]]] = []
        nodes: dict[tuple[int, ...], int] = {(): 0}
        leaves = {tuple(answer) for answer in answers}
        for answer in map(tuple, answers):
            path = []
            for i, token in enumerate(answer):
                node = nodes.get(answer[:i])
                if node is None:
                    node = nodes[answer[:i]] = len(self.tokens)
                    self.tokens.append(answer[i - 1])
                    self.parents.append(nodes[answer[: i - 1]])
                    self.depths.append(i)
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
        """Which fed nodes each fed node attends to: itself and its ancestors (n x n, bool)."""
        mask = torch.zeros(len(self), len(self), dtype=torch.bool)
        for i in range(len(self)):
            if (parent := self.parents[i + 1] - 1) >= 0:
                mask[i] = mask[parent]
            mask[i, i] = True
        return mask

    def predicted(self) -> tuple[Tensor, Tensor]:
        """The tokens to predict at each node (nodes x width) and which of them are real."""
        tokens = torch.zeros(len(self.children), self.width, dtype=torch.long)
        for node, children in enumerate(self.children):
            tokens[node, : len(children)] = torch.tensor(list(children))
        counts = torch.tensor([len(children) for children in self.children])
        return tokens, torch.arange(self.width) < counts[:, None]


class ScoringEngine:
    """Scores answers with one loaded model. Not thread-safe: the caller holds the model's lock.

    Parameters
    ----------
    model
        A causal language model of ``transformers``, in place and on its device.
    pad_id
        Any valid token id; it fills rows and is never attended to.
    batch_tokens
        How many padded tokens one forward pass may hold. Default: by device.
    """

    def __init__(self, model: Any, pad_id: int, batch_tokens: int | None = None) -> None:
        self.model = model
        self.pad_id = pad_id
        on_cpu = model.device.type == "cpu"
        self.batch_tokens = batch_tokens or (1024 if on_cpu else 16384)
        self._prefixes: OrderedDict[tuple[str | None, tuple[int, ...]], Any] = OrderedDict()
        self._last: dict[str | None, Ids] = {}
        self._trie_holds: bool | None = None
        # Within a sliding window attention is ordinary attention; beyond it keys are dropped.
        self._window = getattr(model.config.get_text_config(), "sliding_window", None) or math.inf

    # ---- public -------------------------------------------------------------------------------

    @torch.inference_mode()
    def score(
        self,
        prompts: Sequence[Ids],
        answers: Sequence[Ids],
        *,
        restricted: bool = False,
        owner: str | None = None,
    ) -> NDArray[np.float64]:
        """Log-likelihood of each answer after each prompt.

        Parameters
        ----------
        prompts, answers
            n and k token sequences. No answer may begin another.
        restricted
            Normalise each token over the answers' tokens at that point, not over the vocabulary.
        owner
            The adapter that is switched on: kept prefixes are not shared between adapters.

        Returns
        -------
        Array of shape (n, k), natural logarithms.
        """
        if self._trie_holds is None:
            self._trie_holds = self._check_trie()
        longest = max(map(len, prompts)) + max(map(len, answers))
        if not self._trie_holds or longest > self._window:
            return self.score_plainly(prompts, answers, restricted=restricted)
        trie = AnswerTrie(answers)
        length = self._prefix_length(prompts, owner)
        prefix = self._prefix(tuple(prompts[0][:length]), owner) if length else None
        scores = np.empty((len(prompts), len(answers)))
        for rows in _batches([len(p) - length + len(trie) for p in prompts], self.batch_tokens):
            states = self._states([prompts[row][length:] for row in rows], trie, prefix, length)
            scores[rows] = self._read(states, trie, restricted)
        return scores

    @torch.inference_mode()
    def score_plainly(
        self, prompts: Sequence[Ids], answers: Sequence[Ids], *, restricted: bool = False
    ) -> NDArray[np.float64]:
        """The same by one plain forward pass of prompt + answer for every pair: slow, and simple."""
        trie = AnswerTrie(answers)
        scores = np.empty((len(prompts), len(answers)))
        for n, prompt in enumerate(prompts):
            for k, answer in enumerate(answers):
                ids = torch.tensor([[*prompt, *answer[:-1]]], device=self.model.device)
                logits = self.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :].float()
                if restricted:
                    steps = zip(logits, trie.paths[k], strict=True)
                    parts = (row[list(trie.children[node])].log_softmax(-1)[c] for row, (node, c) in steps)
                    scores[n, k] = float(sum(parts))
                else:
                    target = torch.tensor(answer, device=logits.device)[:, None]
                    scores[n, k] = float(logits.log_softmax(-1).gather(1, target).double().sum())
        return scores

    @torch.inference_mode()
    def embed(self, texts: Sequence[Ids], layer: int) -> NDArray[np.float32]:
        """Mean hidden state after `layer` layers, over all tokens but the first (an attention sink).

        Returns an array of shape (n, hidden size).
        """
        out = np.empty((len(texts), self.model.config.get_text_config().hidden_size), dtype=np.float32)
        for rows in _batches([len(text) for text in texts], self.batch_tokens):
            batch = [texts[row] for row in rows]
            ids, lengths = self._pad(batch)
            keep = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
            hidden = self._hidden_at(ids, keep.long(), layer)
            keep[:, 0] &= lengths == 1
            weight = keep.to(hidden.dtype)[..., None]
            out[rows] = ((hidden * weight).sum(1) / weight.sum(1)).float().cpu().numpy()
        return out

    def forget(self, owner: str | None) -> None:
        """Drop what is kept for an adapter that is gone or has changed."""
        for key in [key for key in self._prefixes if key[0] == owner]:
            del self._prefixes[key]
        self._last.pop(owner, None)

    # ---- the common prefix --------------------------------------------------------------------

    def _prefix_length(self, prompts: Sequence[Ids], owner: str | None) -> int:
        """How many leading tokens to take from a kept or new prefix (0: none)."""
        shortest = min(map(len, prompts))
        last, self._last[owner] = self._last.get(owner), prompts[0]
        common = _common(prompts)
        if len(prompts) == 1:  # a text alone: what it shares with the call before
            common = _common([prompts[0], last]) if last else 0
        common = min(common, shortest - 1)
        kept = [
            len(ids)
            for who, ids in self._prefixes
            if who == owner and len(ids) < shortest and all(tuple(p[: len(ids)]) == ids for p in prompts)
        ]
        longest = max(kept, default=0)
        # A kept prefix a little shorter than what these texts happen to share is the better one.
        if longest and longest >= common - MIN_PREFIX:
            return longest
        return common if common >= MIN_PREFIX else 0

    def _prefix(self, ids: tuple[int, ...], owner: str | None) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of a prefix, one pair per layer, each 1 x heads x tokens x size."""
        key = (owner, ids)
        if key not in self._prefixes:
            tokens = torch.tensor([ids], device=self.model.device)
            cache = self.model.base_model(input_ids=tokens, use_cache=True).past_key_values
            self._prefixes[key] = [(layer.keys, layer.values) for layer in cache.layers]
        self._prefixes.move_to_end(key)
        while len(self._prefixes) > 1 and sum(map(_bytes, self._prefixes.values())) > PREFIX_BYTES:
            self._prefixes.popitem(last=False)
        return self._prefixes[key]  # type: ignore[no-any-return]

    # ---- one batch ----------------------------------------------------------------------------

    def _states(
        self, suffixes: Sequence[Ids], trie: AnswerTrie, prefix: list[tuple[Tensor, Tensor]] | None, past: int
    ) -> Tensor:
        """Hidden states at the end of each prompt and at each trie node: rows x nodes x hidden."""
        device = self.model.device
        ids, lengths = self._pad(suffixes)
        rows, width = ids.shape
        positions = past + torch.arange(width, device=device).expand(rows, -1)
        inputs: dict[str, Any] = {"use_cache": prefix is not None}
        if len(trie):
            nodes = torch.tensor(trie.tokens[1:], device=device).expand(rows, -1)
            depths = torch.tensor(trie.depths[1:], device=device)
            ids = torch.cat([ids, nodes], 1)
            positions = torch.cat([positions, past + lengths[:, None] - 1 + depths], 1)
            inputs["attention_mask"] = _trie_mask(trie, lengths, past, width)
        elif prefix is not None:
            real = torch.arange(width, device=device) < lengths[:, None]
            inputs["attention_mask"] = torch.cat([real.new_ones(rows, past), real], 1).long()
        # Without prefix and trie no mask is needed: right padding is invisible to causal attention.
        if prefix is not None:
            inputs["past_key_values"] = self._expanded(prefix, rows)
        hidden = self.model.base_model(input_ids=ids, position_ids=positions, **inputs).last_hidden_state
        last = hidden[torch.arange(rows, device=device), lengths - 1]
        return torch.cat([last[:, None], hidden[:, width:]], 1)

    def _expanded(self, prefix: list[tuple[Tensor, Tensor]], rows: int) -> DynamicCache:
        """A cache that holds the prefix for every row; nothing is copied until it grows."""
        cache = DynamicCache()
        for keys, values in prefix:
            layer = DynamicLayer()  # a sliding layer would not know how long the prefix is
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)
            cache.layers.append(layer)
        return cache

    def _read(self, states: Tensor, trie: AnswerTrie, restricted: bool) -> NDArray[np.float64]:
        """Sum the answers' token log-probabilities from the states: rows x answers."""
        rows, nodes, size = states.shape
        tokens, real = (t.to(states.device) for t in trie.predicted())
        head = self.model.get_output_embeddings()
        flat = states.transpose(0, 1).reshape(nodes * rows, size)  # node after node
        node_of = torch.arange(nodes, device=states.device).repeat_interleave(rows)
        parts = []
        for some, node in zip(flat.split(HEAD_ROWS), node_of.split(HEAD_ROWS), strict=True):
            logits = head(some).float()
            wanted = logits.gather(1, tokens[node])
            total = wanted.masked_fill(~real[node], -torch.inf) if restricted else logits
            parts.append(wanted - total.logsumexp(-1, keepdim=True))
        logs = torch.cat(parts).view(nodes, rows, -1).double().cpu().numpy()
        return np.stack([sum(logs[node, :, col] for node, col in path) for path in trie.paths], axis=1)

    def _pad(self, sequences: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([len(s) for s in sequences])
        ids = torch.full((len(sequences), int(lengths.max())), self.pad_id)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor(sequence)
        return ids.to(self.model.device), lengths.to(self.model.device)

    def _hidden_at(self, ids: Tensor, mask: Tensor, layer: int) -> Tensor:
        """The hidden states after `layer` layers, without running the later ones."""
        count = self.model.config.get_text_config().num_hidden_layers
        stacks = [m for m in self.model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count]
        if not stacks or not 0 < layer < count:
            hidden = self.model.base_model(
                input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False
            ).hidden_states
            return hidden[layer]  # type: ignore[no-any-return]
        found: list[Tensor] = []

        def stop(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.append(args[0] if args else kwargs["hidden_states"])
            raise _Reached

        handle = stacks[0][layer].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
        except _Reached:
            pass
        finally:
            handle.remove()
        return found[0]

    def _check_trie(self) -> bool:
        """Whether the trie gives what plain forward passes give, tried on a few tokens."""
        vocabulary = self.model.config.get_text_config().vocab_size
        some = [1 + (7 * i) % (vocabulary - 1) for i in range(MIN_PREFIX + 14)]
        prompts = [some[: MIN_PREFIX + 2], [*some[:MIN_PREFIX], *some[-6:]]]
        answers = [[some[3], some[4]], [some[3], some[5], some[6]], [some[7]]]
        self._trie_holds = True
        try:
            fast = self.score(prompts, answers)
            slow = self.score_plainly(prompts, answers)
            holds = bool(np.allclose(fast, slow, rtol=1e-3, atol=self._tolerance()))
        except Exception as error:  # whatever a model does not support, the plain path does
            logger.debug("the trie failed: %r", error)
            holds = False
        self.forget(None)
        if not holds:
            logger.warning(
                "%s cannot be scored with a shared prefix and a label trie; "
                "falling back to one forward pass per text and label, which is slower",
                type(self.model).__name__,
            )
        return holds

    def _tolerance(self) -> float:
        return 1e-3 if self.model.dtype == torch.float32 else 0.5


class _Reached(Exception):  # noqa: N818  (a signal, not an error)
    """Raised inside a forward pass to leave it at the wanted layer."""


def _batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices grouped by similar length, each group within `budget` padded tokens."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[index] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _common(sequences: Sequence[Ids]) -> int:
    """Length of the longest common prefix."""
    first, last = min(map(tuple, sequences)), max(map(tuple, sequences))  # all others lie between these
    pairs = enumerate(zip(first, last, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(last)))


def _bytes(prefix: list[tuple[Tensor, Tensor]]) -> int:
    return sum(t.numel() * t.element_size() for pair in prefix for t in pair)


def _trie_mask(trie: AnswerTrie, lengths: Tensor, past: int, width: int) -> Tensor:
    """Rows x 1 x queries x keys, true where attention is allowed; keys are prefix, text, nodes."""
    device, rows, nodes = lengths.device, len(lengths), len(trie)
    mask = torch.zeros(rows, 1, width + nodes, past + width + nodes, dtype=torch.bool, device=device)
    mask[..., :past] = True
    mask[:, :, :width, past : past + width] = torch.ones(width, width, device=device).tril().bool()
    real = torch.arange(width, device=device) < lengths[:, None]
    mask[:, 0, width:, past : past + width] = real[:, None]
    mask[:, 0, width:, past + width :] = trie.visible().to(device)
    return mask
