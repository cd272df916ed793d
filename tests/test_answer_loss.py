"""The training loss: packed rows, padded rows and plain forward passes give the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from promptclf.classifiers.lora import LoraClassifier
from promptclf.lm.model import HFModel
from promptclf.lm.prefix import MIN_PREFIX
from promptclf.training import trainer
from promptclf.training.answer_loss import AnswerLoss, Row, collate, packs
from quick import CONFIG, TASK, own_model, rows

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
PREFIX = [7 + n % 5 for n in range(MIN_PREFIX + 4)]
ROWS = [
    Row([5, 6, 7, 8, 9, 10], 2),
    Row([9, 8, 7], 1),
    Row([4, 4, 4, 4, 9, 10, 11], 3),
    Row([5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], 1),
]
SHARED = [replace(row, ids=[*PREFIX, *row.ids]) for row in ROWS]
SAME = [replace(SHARED[0], ids=[*SHARED[0].ids[:-2], *end]) for end in ([9, 10], [9, 11], [3, 3])]


@pytest.fixture(scope="module")
def model(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> HFModel:
    return own_model(tiny_folders["llama"], tmp_path_factory.mktemp("own"))


def parts(batch: Sequence[Row], packed: bool, budget: int = 10**6) -> list[dict[str, torch.Tensor]]:
    return collate([(row, 1 / len(batch)) for row in batch], budget, packed)


def losses(module: Any, batch: Sequence[Row], packed: bool, budget: int = 10**6) -> torch.Tensor:
    loss = AnswerLoss(module)
    found = [loss(**{k: v for k, v in p.items() if k != "shares"}) for p in parts(batch, packed, budget)]
    return torch.cat(found)


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("batch", [ROWS, SHARED, SAME, ROWS[:1]], ids=["bare", "prefix", "one text", "alone"])
def test_the_loss_is_the_negative_log_likelihood_of_the_answer(
    tiny: HFModel, batch: list[Row], packed: bool
) -> None:
    with torch.no_grad():
        found = losses(tiny.module, batch, packed).numpy()
    for row, loss in zip(batch, found, strict=True):
        cut = len(row.ids) - row.answer
        score = tiny.engine.score_plainly([row.ids[:cut]], [row.ids[cut:]])[0, 0]
        assert -loss == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_the_restricted_loss_normalises_over_the_rivals(tiny: HFModel, packed: bool) -> None:
    prompt, answers = [5, 6, 7, 8], [[9, 10], [9, 11], [12]]
    rivals = [((9, 12), (10, 11)), ((9, 12), (10, 11)), ((9, 12),)]
    batch = [Row([*prompt, *a], len(a), 1.0, r) for a, r in zip(answers, rivals, strict=True)]
    with torch.no_grad():
        found = -losses(tiny.module, batch, packed).numpy()
    expected = tiny.engine.score_plainly([prompt], answers, restricted=True)[0]
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("batch", [ROWS, SHARED, SAME], ids=["bare", "prefix", "one text"])
def test_packed_and_padded_rows_have_the_same_gradients(tiny: HFModel, batch: list[Row]) -> None:
    """Through the prefix too, which stands in a packed row once and in padded rows as often as texts."""
    named = tiny.module.named_parameters()  # an adapter of another test may not be gone yet
    weights = [p for name, p in named if p.ndim == 2 and ".lora_" not in name]

    def gradients(packed: bool) -> list[torch.Tensor]:
        tiny.module.requires_grad_(True)
        try:
            return list(torch.autograd.grad(losses(tiny.module, batch, packed).sum(), weights))
        finally:
            tiny.module.requires_grad_(False)

    for one, other in zip(gradients(packed=True), gradients(packed=False), strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_what_rows_share_stands_in_a_packed_row_once() -> None:
    (part,) = parts(SHARED, packed=True)
    own = [len(row.ids) - 1 for row in ROWS]
    assert part["ids"].tolist() == [[*PREFIX, *(token for row in ROWS for token in row.ids[:-1])]]
    assert part["starts"].tolist() == [len(PREFIX) + sum(own[:n]) for n in range(len(own) + 1)]
    expected = [*range(len(PREFIX)), *(len(PREFIX) + n for size in own for n in range(size))]
    assert part["positions"].tolist() == [expected]
    (bare,) = parts(ROWS, packed=True)
    assert bare["starts"][0] == 0


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_no_part_holds_more_tokens_than_it_may(tiny: HFModel, packed: bool) -> None:
    """A batch of long texts would not fit into memory at once."""
    batch = [Row([3 + n % 9 for n in range(5 + 3 * k)], 2, 1.0) for k in range(9)]
    cut = parts(batch, packed, budget=40)
    assert len(cut) > 1
    assert all(part["ids"].numel() <= 40 for part in cut)
    assert sum(len(part["shares"]) for part in cut) == len(batch)
    with torch.no_grad():
        some, whole = (losses(tiny.module, batch, packed, budget) for budget in (40, 10**6))
    torch.testing.assert_close(some, whole, atol=1e-4, rtol=0)
    assert len(parts(batch, packed, budget=1)) == len(batch)  # a longer row is a part of its own


def test_what_rows_share_counts_once() -> None:
    own = sum(len(row.ids) for row in ROWS)
    assert len(parts(SHARED, packed=True, budget=len(PREFIX) + own)) == 1
    assert len(parts(SHARED, packed=True, budget=len(PREFIX) + own - 1)) == 2
    long = [replace(row, ids=[*PREFIX * 9, *row.ids]) for row in ROWS]
    assert len(parts(long, packed=True, budget=2 * own)) == 1  # although more than half is shared


def test_rows_that_only_fill_a_batch_are_left_out() -> None:
    (part,) = collate([(ROWS[0], 1.0), (ROWS[1], 0.0), (ROWS[2], 0.0)], budget=100)
    assert part["shares"].tolist() == [1.0]
    (part,) = collate([(ROWS[0], 0.0), (ROWS[1], 0.0)], budget=100)  # a process with nothing else
    assert part["shares"].tolist() == [0.0]


def test_which_models_can_be_trained_in_packed_rows(tiny: HFModel) -> None:
    assert packs(tiny.module, 100)
    torch.manual_seed(0)
    soft_capped = Gemma2ForCausalLM(Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8)).eval()
    assert not packs(soft_capped, 100)
    assert not packs(BloomForCausalLM(BloomConfig(**SMALL)).eval(), 100)  # positions without position ids
    config = MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=40)
    sliding = MistralForCausalLM(config).eval()
    assert packs(sliding, 40)
    assert not packs(sliding, 41)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_training_in_packed_and_in_padded_rows_has_the_same_losses(
    model: HFModel, monkeypatch: pytest.MonkeyPatch, dropout: float
) -> None:
    """To four decimals, over all steps: the whole runs are the same. Dropout draws other numbers."""

    def run(*settings: tuple[Any, str, Any]) -> list[float]:
        found: list[float] = []
        classifier = LoraClassifier(
            TASK,
            model,
            config=replace(CONFIG, dropout=dropout),
            callback=lambda event: found.append(event["loss"]) if event["event"] == "step" else None,
        )
        with monkeypatch.context() as patch:
            for setting in settings:
                patch.setattr(*setting)
            classifier.fit(*rows(20), validation=rows(6, start=100))
        return found

    packed, padded = run(), run((trainer, "packs", lambda module, longest: False))
    assert len(packed) == 10
    if dropout:
        assert packed != padded
        return
    np.testing.assert_allclose(packed, padded, atol=5e-5, rtol=0)
    np.testing.assert_allclose(
        run((trainer, "CPU_TOKENS", 40)), packed, atol=5e-5, rtol=0
    )  # in several parts
