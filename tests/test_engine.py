"""The fast engine gives what plain forward passes give, on models that differ where models do."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from promptclf.lm.engine import ScoringEngine, pass_tokens
from promptclf.lm.model import HFModel
from promptclf.lm.padded import batches
from promptclf.lm.prefix import MIN_PREFIX, common_length
from promptclf.lm.trie import AnswerTrie

CLOSE = 1e-4  # nats, in float32
LABELS = [" positive", " negative", " very negative", " very", " neutral"]  # one begins another
SINGLE = [" a", " b"]
INSTRUCTION = "Choose the label that fits the text best.\n\n"
TEXTS = [
    "Where is my parcel?",
    "A wonderful film, funny and sad at once, and longer than all the others by some words.",
    "",
    "what a boring, boring evening",
    "no",
    "我的包裹在哪里？",
]


def tokens(model: HFModel, texts: Sequence[str] = TEXTS, prefix: str = INSTRUCTION) -> list[list[int]]:
    return [model.encoder.plain(f"{prefix}Text: {text}\nLabel:") for text in texts]


def answers(model: HFModel, labels: Sequence[str] = LABELS) -> list[list[int]]:
    """As `PromptEncoder.answers` gives them: none begins another."""
    end = model.encoder.plain("\n")[-1:]
    return [
        model.encoder.plain("Label:" + label)[len(model.encoder.plain("Label:")) :] + end for label in labels
    ]


@pytest.fixture(params=["packed", "padded"])
def fresh(tiny: HFModel, request: pytest.FixtureRequest) -> ScoringEngine:
    """An engine with nothing kept, on each tiny model, for each fast path."""
    return ScoringEngine(tiny.module, pad_id=tiny.tokenizer.pad_token_id, path=request.param)


class Counter:
    """Counts the tokens that a module's base model is fed."""

    def __init__(self, module: Any) -> None:
        self.fed: list[int] = []
        self._handle = module.base_model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.fed.append((args[0] if args else kwargs["input_ids"]).numel())

    def remove(self) -> None:
        self._handle.remove()


@pytest.fixture
def counter(tiny: HFModel) -> Iterator[Counter]:
    counter = Counter(tiny.module)
    yield counter
    counter.remove()


# ---- parity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("restricted", [False, True])
@pytest.mark.parametrize("labels", [LABELS, SINGLE], ids=["many-token", "few-token"])
@pytest.mark.parametrize("prefix", [INSTRUCTION, ""], ids=["prefix", "bare"])
def test_the_engine_gives_what_plain_passes_give(
    tiny: HFModel, fresh: ScoringEngine, prefix: str, labels: list[str], restricted: bool
) -> None:
    prompts, ends = tokens(tiny, prefix=prefix), answers(tiny, labels)
    fast = fresh.score(prompts, ends, restricted=restricted)
    slow = fresh.score_plainly(prompts, ends, restricted=restricted)
    assert fast.shape == (len(prompts), len(labels)) and fast.dtype == np.float64
    np.testing.assert_allclose(fast, slow, atol=CLOSE, rtol=0)
    # The models are random, not indifferent: texts move the scores by far more than the bound.
    assert np.ptp(fast - fast.mean(axis=1, keepdims=True), axis=0).max() > 0.5


def test_answers_of_one_token_use_no_trie_and_agree(tiny: HFModel, fresh: ScoringEngine) -> None:
    prompts, ends = tokens(tiny), [[5], [9], [40]]
    for _ in range(2):  # the second time from the kept prefix
        np.testing.assert_allclose(
            fresh.score(prompts, ends), fresh.score_plainly(prompts, ends), atol=CLOSE, rtol=0
        )


def test_one_by_one_and_in_a_batch_agree(tiny: HFModel, fresh: ScoringEngine) -> None:
    prompts, ends = tokens(tiny), answers(tiny)
    together = fresh.score(prompts, ends)
    alone = np.concatenate([fresh.score([prompt], ends) for prompt in prompts])
    np.testing.assert_allclose(alone, together, atol=CLOSE, rtol=0)
    small = ScoringEngine(tiny.module, tiny.tokenizer.pad_token_id, batch_tokens=40, path=fresh.path)
    np.testing.assert_allclose(small.score(prompts, ends), together, atol=CLOSE, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "capabilities", "threads", "expected"),
    [
        (torch.float32, {"amx_bf16": True}, 1, 448),
        (torch.float32, {"amx_bf16": True}, 2, 896),
        (torch.float32, {"amx_bf16": True}, 64, 2048),
        (torch.bfloat16, {"amx_bf16": True}, 1, 2048),
        (torch.bfloat16, {"amx_bf16": False}, 1, 448),
        (torch.bfloat16, None, 1, 448),  # an older torch does not tell
    ],
)
def test_a_pass_holds_what_suits_the_processor(
    dtype: torch.dtype,
    capabilities: dict[str, bool] | None,
    threads: int,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if capabilities is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert pass_tokens(SimpleNamespace(device=torch.device("cpu"), dtype=dtype)) == expected


def test_the_order_of_texts_and_labels_does_not_matter(tiny: HFModel, fresh: ScoringEngine) -> None:
    prompts, ends = tokens(tiny), answers(tiny)
    np.testing.assert_allclose(
        fresh.score(prompts[::-1], ends[::-1])[::-1, ::-1], fresh.score(prompts, ends), atol=CLOSE, rtol=0
    )


def test_restricted_scores_are_a_distribution_over_the_answers(tiny: HFModel, fresh: ScoringEngine) -> None:
    scores = fresh.score(tokens(tiny), answers(tiny), restricted=True)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, atol=1e-6)


def test_scores_are_sums_over_the_vocabulary(tiny: HFModel, fresh: ScoringEngine) -> None:
    every = [[token] for token in range(len(tiny.tokenizer))]
    scores = fresh.score(tokens(tiny, TEXTS[:2]), every)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, atol=1e-5)


def test_a_prompt_twice_is_computed_once_and_gets_the_same_scores(
    tiny: HFModel, fresh: ScoringEngine, counter: Counter
) -> None:
    first, second = tokens(tiny)[:2]
    expected = fresh.score([first, second], answers(tiny))  # computes the prefix, too
    counter.fed.clear()
    fresh.score([first, second], answers(tiny))
    once = sum(counter.fed)
    counter.fed.clear()
    scores = fresh.score([first, second, first, first], answers(tiny))
    assert sum(counter.fed) == once
    np.testing.assert_array_equal(scores[[0, 0]], scores[[2, 3]])
    np.testing.assert_allclose(scores[:2], expected, atol=CLOSE, rtol=0)


# ---- the common prefix ----------------------------------------------------------------------------


def test_the_common_prefix_is_computed_once(tiny: HFModel, fresh: ScoringEngine, counter: Counter) -> None:
    prompts, ends = tokens(tiny), answers(tiny)
    nodes, shared = len(AnswerTrie(ends)), common_length(prompts)
    fresh.score(prompts, ends)
    counter.fed.clear()
    fresh.score(prompts, ends)
    assert shared >= MIN_PREFIX
    longest = max(len(prompt) for prompt in prompts)
    assert sum(counter.fed) <= len(prompts) * (longest - shared + nodes)
    counter.fed.clear()
    fresh.score([tokens(tiny, ["another text"])[0]], ends)
    assert sum(counter.fed) == len(tokens(tiny, ["another text"])[0]) - shared + nodes


def test_single_calls_find_their_common_prefix(tiny: HFModel, fresh: ScoringEngine, counter: Counter) -> None:
    prompts, ends = tokens(tiny, ["one", "two", "three"]), answers(tiny)
    for prompt in prompts[:2]:
        fresh.score([prompt], ends)
    assert len(fresh.prefixes) == 1
    counter.fed.clear()
    fresh.score([prompts[2]], ends)
    assert sum(counter.fed) <= len(prompts[2]) - MIN_PREFIX + len(AnswerTrie(ends))


def test_prefixes_are_not_shared_between_adapters(tiny: HFModel, fresh: ScoringEngine) -> None:
    prompts, ends = tokens(tiny), answers(tiny)
    fresh.score(prompts, ends)
    fresh.score(prompts, ends, owner="adapter")
    assert [owner for owner, _ in fresh.prefixes] == [None, "adapter"]
    fresh.forget("adapter")
    assert [owner for owner, _ in fresh.prefixes] == [None]


def test_what_is_kept_of_prefixes_is_bounded(tiny: HFModel, fresh: ScoringEngine) -> None:
    ends = answers(tiny)
    openings = [f"{n}. {INSTRUCTION}" for n in range(6)]
    fresh.score(tokens(tiny, prefix=openings[0]), ends)
    fresh.prefixes.limit = limit = 3.5 * fresh.prefixes.bytes
    for opening in (*openings[1:4], openings[1], openings[4]):
        fresh.score(tokens(tiny, prefix=opening), ends)
    kept = [
        common_length([ids, tokens(tiny, prefix=opening)[0]]) > 2
        for _, ids in fresh.prefixes
        for opening in openings
    ]
    held = [n for n in range(6) if any(kept[n::6])]
    assert held == [1, 3, 4]  # the least recently used went first
    assert fresh.prefixes.bytes <= limit


# ---- the path that is taken -----------------------------------------------------------------------


def test_rows_are_packed_where_that_holds(tiny: HFModel, caplog: pytest.LogCaptureFixture) -> None:
    engine = ScoringEngine(tiny.module, pad_id=tiny.tokenizer.pad_token_id)
    attention = tiny.module.config._attn_implementation
    with caplog.at_level(logging.INFO, logger="promptclf"):
        for _ in range(2):
            engine.score(tokens(tiny), answers(tiny))
    assert engine.path == "packed"
    assert [r.message for r in caplog.records] == [f"{type(tiny.module).__name__} is scored in packed rows"]
    assert tiny.module.config._attn_implementation == attention  # others run the model as they did


def test_packed_rows_hold_no_padding(tiny: HFModel, counter: Counter) -> None:
    engine = ScoringEngine(tiny.module, tiny.tokenizer.pad_token_id, path="packed")
    prompts, ends = tokens(tiny, prefix=""), answers(tiny)
    shared = common_length(prompts)
    engine.score(prompts, ends)
    counter.fed.clear()
    engine.score(prompts, ends)
    kept = shared if shared >= MIN_PREFIX else 0
    assert sum(counter.fed) == sum(len(p) - kept + len(AnswerTrie(ends)) for p in prompts)


@pytest.mark.parametrize(
    ("config", "model", "path"),
    [
        (Gemma2Config, Gemma2ForCausalLM, "padded"),  # soft-capped attention, alternating windows
        (BloomConfig, BloomForCausalLM, "plain"),  # positions without position ids
    ],
)
def test_other_models_take_another_path(config: Any, model: Any, path: str) -> None:
    torch.manual_seed(0)
    shape = (
        SMALL | {"head_dim": 8} if path == "padded" else {"vocab_size": 97, "hidden_size": 32, "n_head": 4}
    )
    module = model(config(**shape)).eval()
    engine = ScoringEngine(module, pad_id=0, spare_nodes=0)
    prompts, ends = [[*range(1, 20), 3], [*range(1, 20), 5, 7, 8]], [[5, 6], [5, 7, 8], [9]]
    for epsilon in (0, 1e-9):
        np.testing.assert_allclose(
            engine.score(prompts, ends, epsilon=epsilon),
            engine.score_plainly(prompts, ends),
            atol=CLOSE,
            rtol=0,
        )
    assert engine.path == path


def test_a_model_that_refuses_the_trie_is_scored_plainly(
    tiny: HFModel, fresh: ScoringEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise TypeError("no such mask")

    fresh.path = None
    for path in ("packed", "padded"):
        monkeypatch.setattr(f"promptclf.lm.engine.score_{path}", refuse)
    prompts, ends = tokens(tiny, TEXTS[:2]), answers(tiny)
    with caplog.at_level(logging.WARNING, logger="promptclf"):
        scores = [fresh.score(prompts, ends) for _ in range(2)]
    np.testing.assert_array_equal(scores[0], fresh.score_plainly(prompts, ends))
    assert [record.message for record in caplog.records] == [
        f"{type(tiny.module).__name__} cannot be scored with a shared prefix and a label trie; "
        "falling back to one forward pass per text and label, which is slower"
    ]


def test_a_model_on_which_the_trie_is_wrong_is_scored_plainly(
    tiny: HFModel, fresh: ScoringEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh.path, real = None, fresh._log_probabilities
    monkeypatch.setattr(fresh, "_log_probabilities", lambda *args: real(*args) * 1.5)
    prompts, ends = tokens(tiny, TEXTS[:2]), answers(tiny)
    np.testing.assert_array_equal(fresh.score(prompts, ends), fresh.score_plainly(prompts, ends))


@pytest.mark.parametrize("length", [20, 60], ids=["inside", "beyond"])
@pytest.mark.parametrize("ends", [[[5, 6], [5, 7, 8], [9]], [[5], [9]]], ids=["trie", "single"])
@pytest.mark.parametrize("family", ["mistral", "gpt-neo"])
def test_a_window_changes_nothing(family: str, length: int, ends: list[list[int]]) -> None:
    torch.manual_seed(0)
    if family == "mistral":
        module: Any = MistralForCausalLM(MistralConfig(sliding_window=40, **SMALL))
    else:  # which has another name for it, and one in every other layer only
        kinds = {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}
        shared = {name: value for name, value in SMALL.items() if not name.startswith("num_")}
        module = GPTNeoForCausalLM(GPTNeoConfig(window_size=40, **kinds, **shared))
    engine = ScoringEngine(module.eval(), pad_id=0)
    numbers = np.random.default_rng(0).integers(1, 90, size=length).tolist()
    prompts = [[*numbers, 1], [*numbers, 2, 3, 4], [*numbers, 2]]
    for _ in range(2):
        np.testing.assert_allclose(
            engine.score(prompts, ends), engine.score_plainly(prompts, ends), atol=CLOSE, rtol=0
        )


SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}


@given(
    prompts=st.lists(st.lists(st.integers(0, 96), min_size=1, max_size=24), min_size=1, max_size=5),
    opening=st.lists(st.integers(0, 96), max_size=16),
    ends=st.lists(st.lists(st.integers(0, 8), max_size=3), min_size=1, max_size=6, unique_by=tuple),
    restricted=st.booleans(),
)
def test_any_tokens_agree(
    any_llama: ScoringEngine,
    prompts: list[list[int]],
    opening: list[int],
    ends: list[list[int]],
    restricted: bool,
) -> None:
    prompts = [opening + prompt for prompt in prompts]
    ends = [[*end, 96] for end in ends]  # an end marker, so that none begins another
    np.testing.assert_allclose(
        any_llama.score(prompts, ends, restricted=restricted),
        any_llama.score_plainly(prompts, ends, restricted=restricted),
        atol=CLOSE,
        rtol=0,
    )


@given(
    prompts=st.lists(st.lists(st.integers(0, 96), min_size=1, max_size=24), min_size=1, max_size=3),
    ends=st.lists(
        st.lists(st.integers(0, 40), min_size=1, max_size=3), min_size=2, max_size=30, unique_by=tuple
    ),
    epsilon=st.sampled_from([1e-3, 0.1, 0.5]),
    restricted=st.booleans(),
)
def test_what_is_left_out_is_bounded(
    any_llama: ScoringEngine,
    prompts: list[list[int]],
    ends: list[list[int]],
    epsilon: float,
    restricted: bool,
) -> None:
    ends = [[*end, 96] for end in ends]
    exact = any_llama.score(prompts, ends, restricted=restricted)
    scores = any_llama.score(prompts, ends, restricted=restricted, epsilon=epsilon)
    bounded = scores > exact + CLOSE
    np.testing.assert_allclose(scores[~bounded], exact[~bounded], atol=CLOSE, rtol=0)
    left_out = np.where(bounded, np.exp(exact), 0).sum(axis=1)
    assert (left_out <= epsilon * np.exp(exact).sum(axis=1) * (1 + 1e-3)).all()


def test_leaving_out_saves_work(any_llama: ScoringEngine) -> None:
    ends = [[first, second, 96] for first in range(12) for second in range(20, 26)]
    prompts = [list(range(10, 40))]
    counter = Counter(any_llama.model)
    fed = []
    for epsilon in (0.0, 0.5):
        counter.fed.clear()
        any_llama.score(prompts, ends, restricted=True, epsilon=epsilon)
        fed.append(sum(counter.fed))
    counter.remove()
    assert fed[1] < fed[0]


def test_where_little_could_be_saved_everything_is_fed_at_once(any_llama: ScoringEngine) -> None:
    ends, prompts = [[first, 20, 96] for first in range(12)], [list(range(10, 40))]
    engine = ScoringEngine(any_llama.model, pad_id=0, path=any_llama.path)
    assert len(AnswerTrie(ends)) <= engine.spare_nodes < 10 * len(AnswerTrie(ends))
    for _ in range(2):  # keeps the prefix
        engine.score(prompts, ends)
    counter = Counter(any_llama.model)
    engine.score(prompts, ends, epsilon=0.5)
    passes = 1 if engine.path == "packed" else 2  # padded rows take the texts first
    assert len(counter.fed) == passes
    counter.fed.clear()
    engine.score([[*prompts[0], n] for n in range(10)], ends, epsilon=1e-9)
    counter.remove()
    assert len(counter.fed) > passes


@given(
    prompts=st.lists(st.lists(st.integers(0, 96), min_size=1, max_size=24), min_size=1, max_size=3),
    ends=st.lists(
        st.lists(st.integers(0, 40), min_size=1, max_size=3), min_size=2, max_size=30, unique_by=tuple
    ),
)
def test_the_best_answer_alone_is_certain(
    any_llama: ScoringEngine, prompts: list[list[int]], ends: list[list[int]]
) -> None:
    ends = [[*end, 96] for end in ends]
    exact = any_llama.score(prompts, ends)
    best = any_llama.score(prompts, ends, epsilon=1.0).argmax(axis=1)
    rows = np.arange(len(prompts))
    np.testing.assert_allclose(exact[rows, best], exact.max(axis=1), atol=CLOSE, rtol=0)


@pytest.fixture(scope="module", params=["packed", "padded"])
def any_llama(request: pytest.FixtureRequest) -> ScoringEngine:
    torch.manual_seed(0)
    module = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
    return ScoringEngine(module, pad_id=0, path=request.param, spare_nodes=0)


# ---- embeddings -----------------------------------------------------------------------------------


def test_embeddings_are_means_of_a_layer(tiny: HFModel, fresh: ScoringEngine) -> None:
    texts = [tiny.encoder.plain(text) for text in ("Where is my parcel?", "no", "a wonderful film")] + [[7]]
    layers = tiny.module.config.num_hidden_layers
    for layer in range(layers + 1):
        vectors = fresh.embed(texts, layer)
        assert vectors.shape == (4, 64) and vectors.dtype == np.float32
        for ids, vector in zip(texts, vectors, strict=True):
            with torch.no_grad():
                out = tiny.module(input_ids=torch.tensor([ids]), output_hidden_states=True)
            states = out.hidden_states[layer][0]
            expected = states[1:].mean(0) if len(ids) > 1 else states[0]
            np.testing.assert_allclose(vector, expected.numpy(), atol=CLOSE, rtol=1e-4)


# ---- parts ----------------------------------------------------------------------------------------


def test_the_trie_feeds_every_shared_token_once() -> None:
    trie = AnswerTrie([[1, 2, 3], [1, 2, 4], [1, 5], [6]])
    assert trie.tokens == [-1, 1, 2] and trie.parents == [-1, 0, 1] and trie.depths == [0, 1, 2]
    assert trie.paths == [[(0, 0), (1, 0), (2, 0)], [(0, 0), (1, 0), (2, 1)], [(0, 0), (1, 1)], [(0, 1)]]
    assert trie.visible().int().tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 1]]
    predicted, real = trie.predicted()
    assert predicted.tolist() == [[1, 6], [2, 5], [3, 4]] and real.all()


@pytest.mark.parametrize("ends", [[[1], [1]], [[1], [1, 2]], [[1, 2, 3], [2], [1, 2]]])
def test_the_trie_refuses_an_answer_that_begins_another(ends: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="add an end marker"):
        AnswerTrie(ends)


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(10, 200))
def test_batches_hold_every_row_once_and_keep_the_budget(lengths: list[int], budget: int) -> None:
    groups = list(batches(lengths, budget))
    assert sorted(row for rows in groups for row in rows) == list(range(len(lengths)))
    for rows in groups:
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= budget


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=5))
def test_the_common_prefix_is_the_longest(sequences: list[list[int]]) -> None:
    length = common_length(sequences)
    assert len({tuple(sequence[:length]) for sequence in sequences}) == 1
    longer = {tuple(sequence[: length + 1]) for sequence in sequences}
    assert len(longer) > 1 or min(map(len, sequences)) == length
