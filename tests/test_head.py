"""The head gives what a model's own forward pass gives, to scoring and to training alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from promptclf.lm.engine import ScoringEngine
from promptclf.lm.head import Head
from promptclf.training.answer_loss import AnswerLoss, Row, collate

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OPT = {"ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.3}
GPT = {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
MODELS: list[Any] = [
    pytest.param(
        (Gemma2Config, Gemma2ForCausalLM, {"head_dim": 8, "final_logit_softcapping": 2.0}), id="caps"
    ),
    pytest.param((GraniteConfig, GraniteForCausalLM, {"logits_scaling": 4.0}), id="divides"),
    pytest.param((CohereConfig, CohereForCausalLM, {"logit_scale": 0.25}), id="multiplies"),
    pytest.param((OPTConfig, OPTForCausalLM, OPT), id="passes its body by"),
    pytest.param((GPT2Config, GPT2LMHeadModel, GPT), id="plain"),
]
PROMPTS, ENDS = [[*range(3, 20), 3], [*range(3, 20), 5, 7, 8]], [[5, 6], [5, 7, 8], [9]]


@pytest.fixture(params=MODELS)
def module(request: pytest.FixtureRequest) -> Any:
    config, model, more = request.param
    torch.manual_seed(0)
    return model(config(**SHAPE | more)).eval()


def own(module: Any, ids: list[int]) -> torch.Tensor:
    return module(input_ids=torch.tensor([ids]), use_cache=False).logits[0]  # type: ignore[no-any-return]


def test_logits_are_the_models_own(module: Any) -> None:
    head, body = Head(module), module.base_model
    for ids in PROMPTS:
        states = module.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(head(states), own(module, ids), atol=1e-6, rtol=0)
    assert module.base_model is body


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_wanted_logits_are_not_rounded(module: Any, kind: torch.dtype) -> None:
    module.to(kind)
    states = (3 * torch.randn(4, 32)).to(kind)
    columns = torch.tensor([5, 7, 96])
    head, layer = Head(module), module.get_output_embeddings()
    rounded, found = head(states), head(states, columns)
    assert module.get_output_embeddings() is layer
    module.float()
    expected = Head(module)(states.float())
    torch.testing.assert_close(found[:, columns], expected[:, columns], atol=1e-5, rtol=1e-5)
    assert (rounded - expected)[:, columns].abs().max() > 1e-4
    others = [column for column in range(97) if column not in columns]
    torch.testing.assert_close(found[:, others], rounded[:, others], atol=0.05, rtol=0.02)


def test_the_output_layer_is_back_after_an_error(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module.bfloat16()
    head, layer = Head(module), module.get_output_embeddings()
    head(torch.ones(1, 32, dtype=torch.bfloat16))
    with pytest.raises(IndexError):
        head(torch.ones(1, 32, dtype=torch.bfloat16), torch.tensor([97]))
    assert module.get_output_embeddings() is layer


def test_a_bias_counts() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**SHAPE | GPT)).eval()
    model.lm_head = torch.nn.Linear(32, 97, bias=True)
    model.bfloat16()
    states, columns = torch.randn(3, 32).bfloat16(), torch.tensor([1, 2])
    found = Head(model)(states, columns)[:, columns]
    torch.testing.assert_close(found, Head(model.float())(states.float())[:, columns], atol=1e-5, rtol=1e-5)


def test_labels_do_not_tie_in_half_precision() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**SHAPE | GPT)).eval()
    answers = [[token] for token in range(3, 97)]
    with torch.no_grad():
        model.lm_head.weight.mul_(5)
    engine = ScoringEngine(model.bfloat16(), pad_id=0, path="padded")
    assert any(len(set(row)) < len(row) for row in engine.score_plainly(PROMPTS, answers))
    assert all(len(set(row)) == len(row) for row in engine.score(PROMPTS, answers))


def test_scores_are_those_of_plain_passes_without_falling_back(module: Any) -> None:
    engine = ScoringEngine(module, pad_id=0)
    found, expected = engine.score(PROMPTS, ENDS), engine.score_plainly(PROMPTS, ENDS)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    assert engine.path != "plain"


@pytest.mark.parametrize("packed", [True, False])
def test_training_minimises_the_models_own_loss(module: Any, packed: bool) -> None:
    if packed and type(module).__name__ in ("Gemma2ForCausalLM", "OPTForCausalLM"):
        pytest.skip("not trained in packed rows")
    rows = [Row([*prompt, *end], len(end)) for prompt in PROMPTS for end in ENDS]
    (part,) = collate([(row, 1.0) for row in rows], budget=10**6, packed=packed)
    del part["shares"]
    loss = AnswerLoss(module)(**part)
    for row, found in zip(rows, loss, strict=True):
        logits = own(module, row.ids)[-row.answer - 1 : -1]
        target = torch.tensor(row.ids[-row.answer :])
        expected = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    weight = module.get_input_embeddings().weight
    (gradient,) = torch.autograd.grad(loss.sum(), weight)
    assert float(gradient.abs().max()) > 0
