"""The training loop: what a batch is, and that neither its parts nor processes change its loss."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from hypothesis import given
from hypothesis import strategies as st

from live import free_port
from promptclf.classifiers.lora import LoraClassifier
from promptclf.errors import TrainingError
from promptclf.lm.model import HFModel
from promptclf.settings import MIN_STEPS, TrainConfig
from promptclf.training import answer_loss
from promptclf.training.answer_loss import Row
from promptclf.training.trainer import LengthSampler, make_optimizer
from quick import CONFIG, TASK, adapters, digest, own_model, rows
from two_processes import fit_and_report


@pytest.fixture(scope="module")
def model(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> HFModel:
    return own_model(tiny_folders["llama"], tmp_path_factory.mktemp("own"))


def losses(model: HFModel, config: TrainConfig, count: int = 20, **options: Any) -> list[float]:
    found: list[float] = []
    classifier = LoraClassifier(
        TASK,
        model,
        config=config,
        callback=lambda event: found.append(event["loss"]) if event["event"] == "step" else None,
    )
    classifier.fit(*rows(count), validation=rows(6, start=100), **options)
    return found


def test_no_run_is_stopped_before_its_least_number_of_steps(model: HFModel) -> None:
    """With few rows an epoch is a few steps: patience in epochs would end a run before it began."""
    config = TrainConfig(
        rank=2, alpha=4, batch_size=8, epochs=1, min_steps=30, patience=1, learning_rate=1e-12
    )
    assert len(losses(model, config, count=20)) == 30
    assert len(losses(model, replace(config, min_steps=1, epochs=10), count=20)) == 6  # here it is patience


# ---- the order of rows ----------------------------------------------------------------------------


def of_lengths(lengths: list[int], weights: list[float] | None = None) -> list[Row]:
    weights = weights or [1.0] * len(lengths)
    return [Row([0] * n, 1, weight) for n, weight in zip(lengths, weights, strict=True)]


@given(st.lists(st.integers(2, 40), min_size=1, max_size=90), st.integers(1, 9), st.integers(0, 3))
def test_each_row_comes_once_an_epoch_in_whole_batches(lengths: list[int], size: int, epoch: int) -> None:
    sampler = LengthSampler(of_lengths(lengths), size, seed=1)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert len(order) == len(sampler)
    assert len(order) % size == 0
    assert Counter(row for row, share in order if share) == Counter(range(len(lengths)))
    assert len(order) - len(lengths) < size  # what fills the last batch does not count
    for start in range(0, len(order), size):
        assert sum(share for _, share in order[start : start + size]) == pytest.approx(1)


def test_the_seed_and_the_epoch_decide_the_order() -> None:
    lengths = of_lengths([3 + n % 7 for n in range(50)])

    def order(seed: int, epoch: int) -> list[tuple[int, float]]:
        sampler = LengthSampler(lengths, 8, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 2) == order(0, 2)
    assert order(0, 2) != order(0, 3)
    assert order(0, 2) != order(1, 2)


def test_a_batch_holds_rows_of_similar_length() -> None:
    lengths = np.random.default_rng(0).integers(5, 200, size=256)
    order = [row for row, _ in LengthSampler(of_lengths(lengths.tolist()), 8, seed=0)]
    spreads = [np.ptp(lengths[order[i : i + 8]]) for i in range(0, 256, 8)]
    assert np.median(spreads) < 15


def test_shares_follow_the_weights() -> None:
    order = dict(LengthSampler(of_lengths([5, 5, 5], [1.0, 2.0, 5.0]), 3, seed=0))
    assert order == pytest.approx({0: 1 / 8, 1: 2 / 8, 2: 5 / 8})
    empty = LengthSampler(of_lengths([5, 5], [0.0, 0.0]), 2, seed=0)
    assert [share for _, share in empty] == [0.0, 0.0]


# ---- batches, parts and processes -----------------------------------------------------------------


@pytest.mark.parametrize("count", [16, 19])
def test_a_batch_in_parts_has_the_losses_of_a_whole_one(model: HFModel, count: int) -> None:
    weights = np.arange(1, count + 1) / 10
    whole = losses(model, replace(CONFIG, batch_size=8), count, sample_weight=weights)
    parts = losses(model, replace(CONFIG, batch_size=8, accumulation=2), count, sample_weight=weights)
    assert len(whole) == 2 * -(-count // 8)
    np.testing.assert_allclose(parts, whole, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """`accelerate launch --cpu` starts one process whatever one asks for, so they are counted."""
    here = Path(__file__).parent
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_addr", "127.0.0.1", "--master_port", str(free_port())]
    command += [str(here / "two_processes.py")]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)]),
    }
    done = subprocess.run(
        [*command, str(tiny_folders["llama"]), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads((tmp_path / "report-0.json").read_text())
    heard = {key: two[key] for key in ("losses", "afresh")}  # in the main process only
    assert two == json.loads((tmp_path / "report-1.json").read_text()) | heard
    one = fit_and_report(tiny_folders["llama"], tmp_path / "one")
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["afresh"] == two["afresh"] == [26]
    np.testing.assert_allclose(two["losses"], one["losses"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(two["probabilities"], one["probabilities"], atol=1e-3)
    assert two["resumed"] == two["whole"]
    assert one["resumed"] == one["whole"]


def test_a_batch_that_processes_cannot_share_is_refused(
    model: HFModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import Accelerator

    monkeypatch.setattr(Accelerator, "num_processes", 3)
    with pytest.raises(TrainingError, match="expected a multiple of the 3 processes, got 4"):
        losses(model, CONFIG)
    assert not adapters(model)


def test_another_device_than_that_of_the_run_before_is_no_obstacle(model: HFModel) -> None:
    """The accelerate library keeps its first device: after a run on a GPU none on a CPU was allowed."""
    losses(model, replace(CONFIG, epochs=1))
    PartialState().device = torch.device("cuda", 0)
    assert len(losses(model, replace(CONFIG, epochs=1))) == 5
    assert PartialState().device.type == "cpu"


def test_packed_rows_are_tried_while_nobody_else_uses_the_model(
    model: HFModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial changes how the model attends; a prediction meanwhile would leave it so for good."""
    held: list[bool] = []
    agrees = answer_loss._agrees

    def spy(module: Any) -> bool:
        other = threading.Thread(target=lambda: held.append(not model.lock.acquire(blocking=False)))
        other.start()
        other.join()
        return agrees(module)

    monkeypatch.setattr(answer_loss, "_packing", {})
    monkeypatch.setattr(answer_loss, "_agrees", spy)
    losses(model, replace(CONFIG, epochs=1))
    assert held == [True]


def test_others_can_predict_while_a_run_goes_on(model: HFModel) -> None:
    """The lock is held for a step at a time, and adapters are off and dropout still between steps."""
    from promptclf.classifiers.zero_shot import ZeroShotClassifier

    zero = ZeroShotClassifier(TASK, model, calibration="none").fit()
    texts = rows(3)[0]
    before, during = zero.predict_proba(texts), []

    def predict(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" or event["step"] != 3:
            return
        thread = threading.Thread(target=lambda: during.append(zero.predict_proba(texts)))
        thread.start()
        thread.join(timeout=60)

    LoraClassifier(TASK, model, config=replace(CONFIG, dropout=0.5), callback=predict).fit(
        *rows(20), validation=rows(6, start=100)
    )
    np.testing.assert_array_equal(during[0], before)


# ---- optimisers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD), ("adamw8bit", object)]
)
def test_every_optimiser_learns(model: HFModel, name: str, kind: type) -> None:
    rate = 0.1 if name == "sgd" else CONFIG.learning_rate
    config = replace(CONFIG, optimizer=name, epochs=6, learning_rate=rate, weight_decay=0.01)
    found = losses(model, config)
    assert np.mean(found[-5:]) < 0.8 * np.mean(found[:5])
    parameter = torch.zeros(3, requires_grad=True)
    optimizer = make_optimizer(config, [parameter])
    assert isinstance(optimizer, kind)
    assert optimizer.param_groups[0]["weight_decay"] == 0.01


def test_8_bit_adamw_that_does_not_run_is_replaced_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import bitsandbytes.optim

    def fail(*args: Any, **options: Any) -> None:
        raise RuntimeError("no kernel for this device")

    monkeypatch.setattr(bitsandbytes.optim, "AdamW8bit", fail)
    with caplog.at_level(logging.WARNING, "promptclf"):
        optimizer = make_optimizer(
            replace(CONFIG, optimizer="adamw8bit"), [torch.zeros(3, requires_grad=True)]
        )
    assert type(optimizer) is torch.optim.AdamW
    assert "8-bit AdamW does not run here (no kernel for this device); using AdamW" in caplog.text


def test_the_learning_rate_rises_and_falls(model: HFModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: Any, **options: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return real(self, *args, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    losses(model, replace(CONFIG, epochs=4, warmup=0.25))
    assert len(rates) == 20
    assert rates.index(max(rates)) == 5
    assert rates == sorted(rates[:5]) + sorted(rates[5:], reverse=True)
    assert max(rates) == pytest.approx(CONFIG.learning_rate)


# ---- settings -------------------------------------------------------------------------------------


def test_numbers_of_numpy_become_pythons() -> None:
    given: dict[str, Any] = {"rank": np.int64(4), "learning_rate": np.float32(0.5), "min_steps": np.int32(0)}
    same = TrainConfig(rank=4, learning_rate=0.5, min_steps=0)
    assert json.loads(json.dumps(TrainConfig(**given).to_dict())) == same.to_dict()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"loss": "mse"}, "loss: expected one of vocabulary, labels, got 'mse'"),
        ({"optimizer": "lion"}, "optimizer: expected one of adamw, sgd, adamw8bit, got 'lion'"),
        ({"class_weights": "auto"}, "class_weights: expected one of none, balanced, got 'auto'"),
        ({"rank": 0}, "rank: expected 1 to 1024, a whole number, got 0"),
        ({"epochs": -1}, "epochs: expected 1 to 100000, a whole number, got -1"),
        ({"accumulation": 3}, "accumulation: expected a divisor of batch_size 8, got 3"),
        ({"learning_rate": 0.0}, "learning_rate: expected 1e-12 to 1e"),
        ({"learning_rate": float("nan")}, "learning_rate: .* got nan"),
        ({"rank": 100_000}, "rank: expected 1 to 1024, a whole number, got 100000"),
        ({"weight_decay": -1.0}, "weight_decay: expected 0 to"),
        ({"max_grad_norm": -1.0}, "max_grad_norm: expected"),
        ({"min_steps": -5}, "min_steps: expected 0 to"),
        ({"save_steps": 0}, "save_steps: expected 1 to"),
        ({"dropout": 1.0}, "dropout: expected 0 to 0.99, a number, got 1.0"),
        ({"rank": "8"}, "rank: expected 1 to 1024, a whole number, got '8'"),
        ({"epochs": 2.5}, "epochs: expected 1 to 100000, a whole number, got 2.5"),
        ({"batch_size": True}, "batch_size: expected 1 to 65536, a whole number, got True"),
        ({"batch_size": None}, "batch_size: expected 1 to 65536, a whole number, got None"),
        ({"learning_rate": "1e-3"}, "learning_rate: expected 1e-12 to 1e\\+30, a number, got '1e-3'"),
        ({"dropout": None}, "dropout: expected 0 to 0.99, a number, got None"),
        ({"warmup": 2.0}, "warmup: expected 0 to 1, a number, got 2.0"),
        ({"validation_fraction": 1.0}, "validation_fraction: expected 0.001 to 0.999, a number, got 1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        TrainConfig(**wrong)


def test_small_data_get_enough_steps() -> None:
    assert TrainConfig().steps_wanted(2) == MIN_STEPS == 150
    assert TrainConfig().steps_wanted(77) == 77 * 8
    assert TrainConfig(min_steps=5).steps_wanted(77) == 5
    assert TrainConfig(epochs=1).steps_wanted(77) == TrainConfig(min_steps=0).steps_wanted(77) == 0
    assert TrainConfig(epochs=1, min_steps=5).steps_wanted(77) == 5
    assert set(TrainConfig.names()) >= {"rank", "learning_rate", "patience", "save_steps"}


def test_a_least_number_of_steps_is_reached_in_whole_epochs(model: HFModel) -> None:
    assert len(losses(model, replace(CONFIG, min_steps=12))) == 15  # 5 an epoch


def test_the_seed_decides_everything(model: HFModel) -> None:
    def fit(seed: int) -> str:
        config = replace(CONFIG, dropout=0.3, epochs=1)
        classifier = LoraClassifier(TASK, model, config=config, seed=seed)
        torch.manual_seed(np.random.default_rng().integers(1000))  # the caller's seed has no part in it
        return digest(classifier.fit(*rows(20)))

    assert fit(0) == fit(0) != fit(1)


def test_the_callers_random_numbers_are_left_alone(model: HFModel) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    losses(model, replace(CONFIG, dropout=0.3, epochs=1))
    assert torch.equal(torch.random.get_rng_state(), before)
