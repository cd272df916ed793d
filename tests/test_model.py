"""`HFModel`: one shared object, its limits, its embeddings and its adapters."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone

from fakes import FakeModel
from promptclf.errors import ArtifactError, TextTooLongError
from promptclf.lm import model as model_module
from promptclf.lm.loading import load_model
from promptclf.lm.model import HFModel, LanguageModel
from promptclf.prompt import Message, Prompt, PromptTemplate
from promptclf.task import Task

TASK = Task("mood", ("positive", "negative", "very negative"))
ANSWERS = [" positive", " negative", " very negative"]
COMPLETION = PromptTemplate.load("completion")
TEXTS = ["Where is my parcel?", "a wonderful film", "boring"]


def prompts(texts: list[str] = TEXTS, template: PromptTemplate = COMPLETION) -> list[Prompt]:
    return [template.render(TASK, text) for text in texts]


# ---- the seam -------------------------------------------------------------------------------------


def test_both_models_implement_the_protocol(tiny: HFModel, fake_model: FakeModel) -> None:
    assert isinstance(tiny, LanguageModel)
    assert isinstance(fake_model, LanguageModel)


def test_scores_are_those_of_the_tokens(tiny: HFModel) -> None:
    scores = tiny.score(prompts(), ANSWERS)
    ids = [tiny.encoder.prompt(prompt) for prompt in prompts()]
    answers = tiny.encoder.answers(prompts()[0], ANSWERS)
    assert scores.shape == (3, 3)
    np.testing.assert_allclose(scores, tiny.engine.score_plainly(ids, answers), atol=1e-4, rtol=0)


def test_a_chat_is_scored_after_its_template(tiny_models: dict[str, HFModel]) -> None:
    chat = PromptTemplate.load("chat")
    for model in (tiny_models["llama"], tiny_models["qwen3"]):
        ids = [model.encoder.prompt(prompt) for prompt in prompts(template=chat)]
        answers = model.encoder.answers(prompts(template=chat)[0], ANSWERS)
        expected = model.engine.score_plainly(ids, answers)
        np.testing.assert_allclose(model.score(prompts(template=chat), ANSWERS), expected, atol=1e-4, rtol=0)


def test_no_texts_no_scores(tiny: HFModel) -> None:
    assert tiny.score([], ANSWERS).shape == (0, 3)


def test_prompts_of_two_templates_are_refused(tiny: HFModel) -> None:
    other = PromptTemplate("other", user="{text}", cue="Mood:")
    with pytest.raises(ValueError, match="must come from the same template"):
        tiny.score([*prompts(), other.render(TASK, "x")], ANSWERS)


def test_tokens_are_counted_and_shown(tiny: HFModel) -> None:
    prompt = prompts()[0]
    shown = tiny.tokens(prompt)
    assert tiny.count_tokens([prompt]) == [len(shown)]
    assert [index for index, _ in shown] == tiny.encoder.prompt(prompt)
    assert "parcel" in tiny.tokenizer.decode([index for index, _ in shown])


def test_the_info_is_plain_data(tiny: HFModel) -> None:
    info = tiny.info.to_dict()
    assert info["source"] == "folder"
    assert len(info["revision"]) == 64
    assert (info["quantization"], info["device"], info["dtype"]) == ("none", "cpu", "float32")


# ---- limits ---------------------------------------------------------------------------------------


def test_the_limit_is_the_models_own(tiny_models: dict[str, HFModel]) -> None:
    limits = {family: model.max_tokens for family, model in tiny_models.items()}
    assert limits == {"llama": 512, "gpt2": 256, "qwen3": 512}


def test_a_long_text_is_refused_with_limit_and_length(tiny: HFModel) -> None:
    prompt = COMPLETION.render(TASK, "word " * 600)
    room = max(map(len, tiny.encoder.answers(prompt, ANSWERS))) - 1
    length = tiny.count_tokens([prompt])[0] + room
    message = f"text 2: expected at most {tiny.max_tokens} tokens with the prompt, got {length}; shorten it"
    with pytest.raises(TextTooLongError, match=message):
        tiny.score([*prompts(["short"]), prompt], ANSWERS)


def test_the_longest_text_that_fits_is_scored(tiny: HFModel) -> None:
    room = max(map(len, tiny.encoder.answers(prompts()[0], ANSWERS))) - 1
    fitting = [n for n in range(600) if tiny.count_tokens(prompts(["x" * n]))[0] + room == tiny.max_tokens]
    assert np.isfinite(tiny.score(prompts(["x" * fitting[-1]]), ANSWERS)).all()
    with pytest.raises(TextTooLongError):
        tiny.score(prompts(["x" * (fitting[-1] + 1)]), ANSWERS)


def test_a_huge_text_is_refused_before_it_is_tokenised(
    tiny: HFModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny.encoder, "prompt", lambda prompt: pytest.fail("tokenised"))
    huge = Prompt((Message("user", "x" * 10_000_000),), "Label:", chat=False)
    with pytest.raises(TextTooLongError, match=r"tokens, got one of 10000000 characters"):
        tiny.score([huge], ANSWERS)


# ---- sharing --------------------------------------------------------------------------------------


class Holder(BaseEstimator):
    """An estimator with a model among its parameters, as our classifiers are."""

    def __init__(self, model: HFModel) -> None:
        self.model = model


def test_a_model_is_shared_never_copied(tiny: HFModel) -> None:
    assert copy.copy(tiny) is tiny
    assert copy.deepcopy({"model": [tiny]})["model"][0] is tiny
    assert clone(Holder(tiny)).model is tiny


def test_unpickling_finds_the_loaded_model(tiny_llama: Path) -> None:
    model = load_model(str(tiny_llama), device="cpu")
    data = pickle.dumps(model)
    assert len(data) < 1000  # a spec, no weights
    assert pickle.loads(data) is model


def test_what_auto_comes_to_is_not_loaded_twice(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptclf.lm.loading._loaded", {})
    monkeypatch.delenv("PROMPTCLF_DTYPE")
    monkeypatch.setattr("promptclf.lm.loading.fastest", lambda *args: "float32")
    named = load_model(str(tiny_llama), device="cpu", dtype="float32")
    assert load_model(str(tiny_llama), device="cpu") is named is pickle.loads(pickle.dumps(named))


def test_another_process_computes_in_the_precision_of_this_one(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is "auto" may be another one there: the machine is busier, or another."""
    monkeypatch.setattr("promptclf.lm.loading._loaded", {})
    monkeypatch.delenv("PROMPTCLF_DTYPE")
    monkeypatch.setattr("promptclf.lm.loading.fastest", lambda *args: "bfloat16")
    model = load_model(str(tiny_llama), device="cpu")
    assert (model.info.dtype, model.spec["dtype"]) == ("bfloat16", "bfloat16")
    data = pickle.dumps(model)
    monkeypatch.setattr("promptclf.lm.loading._loaded", {})
    monkeypatch.setattr("promptclf.lm.loading.fastest", lambda *args: "float32")
    assert pickle.loads(data).info.dtype == "bfloat16"


def test_unpickling_elsewhere_loads_the_same_weights(tiny_llama: Path) -> None:
    model = load_model(str(tiny_llama), device="cpu")
    expected, data = model.score(prompts(), ANSWERS), pickle.dumps(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("promptclf.lm.loading._loaded", {})  # as in another process
        again = pickle.loads(data)
    assert again is not model
    np.testing.assert_array_equal(again.score(prompts(), ANSWERS), expected)


def test_threads_share_a_model(tiny: HFModel) -> None:
    texts = [f"text number {n}" for n in range(12)]
    expected = [tiny.score(prompts([text]), ANSWERS) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: tiny.score(prompts([text]), ANSWERS), texts))
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


# ---- embeddings -----------------------------------------------------------------------------------


def test_embeddings_have_a_row_per_text(tiny: HFModel) -> None:
    vectors = tiny.embed(["a film", "", "word " * 900, "a film"])
    assert vectors.shape == (4, 64)
    assert np.isfinite(vectors).all()
    np.testing.assert_array_equal(vectors[0], vectors[3])
    assert not np.allclose(vectors[0], vectors[2])


def test_a_text_is_embedded_once(tiny: HFModel, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[int] = []
    real = tiny.engine.embed
    monkeypatch.setattr(
        tiny.engine, "embed", lambda ids, layer: embedded.append(len(ids)) or real(ids, layer)
    )
    first = tiny.embed(["a new text", "another", "a new text"])
    second = tiny.embed(["another", "a new text"])
    assert embedded == [2]
    np.testing.assert_array_equal(first[:2], second[::-1])
    tiny.embed(["another"], layer=1)
    assert len(embedded) == (1 if tiny._layers // 2 == 1 else 2)


def test_what_is_kept_of_embeddings_is_bounded(tiny: HFModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "KEPT_EMBEDDINGS", 3)
    vectors = tiny.embed(["k0", "k1", "k2"])
    more = tiny.embed(["k2", "k3", "k4"])
    np.testing.assert_array_equal(vectors[2], more[0])
    assert len(tiny._embeddings) <= 3


# ---- adapters -------------------------------------------------------------------------------------


@pytest.fixture
def own(tiny_folders: dict[str, Path], tmp_path: Path) -> HFModel:
    """A model of this test's own, since adapters change it in place."""
    folder = tmp_path / "own"
    folder.symlink_to(tiny_folders["llama"], target_is_directory=True)
    return load_model(str(folder), device="cpu")


def lora(rank: int = 4) -> object:
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


def randomise(model: HFModel, name: str) -> None:
    with torch.no_grad():
        for parameter in model.adapters.parameters(name):
            parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))


def test_an_adapter_changes_only_calls_that_name_it(own: HFModel) -> None:
    before = own.score(prompts(), ANSWERS)
    vectors = own.embed(["a film"])
    with own.lock:
        name = own.adapters.add(lora())
        randomise(own, name)
    adapted = own.score(prompts(), ANSWERS, adapter=name)
    assert np.abs(adapted - before).max() > 0.1
    own._embeddings.clear()
    np.testing.assert_array_equal(own.score(prompts(), ANSWERS), before)
    np.testing.assert_array_equal(own.embed(["a film"]), vectors)
    np.testing.assert_array_equal(own.score(prompts(), ANSWERS, adapter=name), adapted)


def test_adapters_do_not_disturb_each_other(own: HFModel) -> None:
    before = own.score(prompts(), ANSWERS)
    one, two = own.adapters.add(lora()), own.adapters.add(lora(2))
    randomise(own, one)
    first = own.score(prompts(), ANSWERS, adapter=one)
    # An adapter starts as the identity.
    np.testing.assert_allclose(own.score(prompts(), ANSWERS, adapter=two), before, atol=1e-5, rtol=0)
    randomise(own, two)
    np.testing.assert_array_equal(own.score(prompts(), ANSWERS, adapter=one), first)
    own.adapters.remove(two)
    np.testing.assert_array_equal(own.score(prompts(), ANSWERS, adapter=one), first)
    np.testing.assert_array_equal(own.score(prompts(), ANSWERS), before)
    own.adapters.remove(one)
    own.adapters.remove(one)  # gone already: nothing happens
    np.testing.assert_array_equal(own.score(prompts(), ANSWERS), before)
    assert not any("lora" in name for name, _ in own.module.named_parameters())


def test_the_weights_of_an_adapter_travel(own: HFModel) -> None:
    one, two = own.adapters.add(lora()), own.adapters.add(lora())
    randomise(own, one)
    state = own.adapters.state(one)
    assert all(one not in key for key in state)
    own.adapters.load_state(two, state)
    np.testing.assert_array_equal(
        own.score(prompts(), ANSWERS, adapter=two), own.score(prompts(), ANSWERS, adapter=one)
    )


def test_weights_that_do_not_fit_are_refused_and_change_nothing(own: HFModel) -> None:
    name = own.adapters.add(lora())
    randomise(own, name)
    before, state = own.score(prompts(), ANSWERS, adapter=name), own.adapters.state(name)
    key = sorted(state)[0]
    without = {k: v for k, v in state.items() if k != key}
    with pytest.raises(
        ArtifactError, match=rf"1 weights differ in name, such as '{key}'; load it with the base"
    ):
        own.adapters.load_state(name, without)
    with pytest.raises(ArtifactError, match="weights differ in name, such as 'strange'"):
        own.adapters.load_state(name, {**state, "strange": state[key]})
    changed = {k: torch.zeros_like(v) for k, v in state.items()} | {key: state[key].T}
    with pytest.raises(ArtifactError, match=r"does not fit the model: .* expected"):
        own.adapters.load_state(name, changed)
    np.testing.assert_array_equal(own.score(prompts(), ANSWERS, adapter=name), before)


def test_adapters_are_off_after_an_error(own: HFModel) -> None:
    before = own.score(prompts(), ANSWERS)
    name = own.adapters.add(lora())
    randomise(own, name)
    with pytest.raises(RuntimeError, match="stop"), own.adapters.using(name):
        raise RuntimeError("stop")
    np.testing.assert_array_equal(own.score(prompts(), ANSWERS), before)
