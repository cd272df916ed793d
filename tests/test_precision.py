"""Which format a model computes in where nobody says it: what is measured decides, once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from promptclf.errors import ModelError
from promptclf.lm import precision
from promptclf.lm.loading import load_model
from promptclf.lm.precision import fastest, shortest


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROMPTCLF_HOME", str(tmp_path / "home"))


def config(**sizes: int) -> Any:
    sizes = {"hidden_size": 576, "intermediate_size": 1536} | sizes
    return SimpleNamespace(get_text_config=lambda: SimpleNamespace(**sizes))


class Clock:
    """Stands in for `shortest`, with given times, and notes what it was asked."""

    def __init__(self, plain: float, half: float) -> None:
        self.times = [plain, half]
        self.asked: list[tuple[Any, ...]] = []

    def __call__(self, *asked: Any) -> list[float]:
        self.asked.append(asked)
        return self.times


@pytest.mark.parametrize(
    ("plain", "half", "chosen"),
    [(1.0, 1.7, "float32"), (1.0, 0.95, "float32"), (1.0, 0.5, "bfloat16")],
)
def test_on_a_cpu_half_the_bits_must_pay(
    monkeypatch: pytest.MonkeyPatch, plain: float, half: float, chosen: str
) -> None:
    clock = Clock(plain, half)
    monkeypatch.setattr(precision, "shortest", clock)
    assert [fastest(config(), "cpu") for _ in range(2)] == [chosen] * 2
    assert len(clock.asked) == 1  # it is remembered
    assert fastest(config(hidden_size=4096, intermediate_size=11008), "cpu") == chosen
    assert len(clock.asked) == 2  # for these sizes
    rows, width, inner = clock.asked[1][:3]
    assert (width, inner) == (4096, 11008)
    assert 2 * rows * width * inner <= precision.OPERATIONS


def test_what_has_no_kernel_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*asked: Any) -> Any:
        raise RuntimeError("not implemented for 'BFloat16'")

    monkeypatch.setattr(precision, "shortest", fails)
    assert fastest(config(), "cpu") == "float32"


def test_both_formats_are_timed_within_two_seconds() -> None:
    import time

    start = time.perf_counter()
    times = shortest(64, 512, 1024, "cpu", ("float32", "bfloat16"))
    assert len(times) == 2
    assert min(times) > 0
    assert time.perf_counter() - start < 10  # two, on a machine that does nothing else


def test_a_model_says_what_it_computes_in(monkeypatch: pytest.MonkeyPatch, tiny_llama: Path) -> None:
    def quick(rows: int, width: int, inner: int, device: str, kinds: Sequence[str]) -> list[float]:
        return [1.0, 0.1]

    monkeypatch.setattr(precision, "shortest", quick)
    monkeypatch.setenv("PROMPTCLF_DTYPE", "")
    model = load_model(str(tiny_llama), device="cpu")
    assert (model.info.dtype, str(model.module.dtype)) == ("bfloat16", "torch.bfloat16")
    assert load_model(str(tiny_llama), device="cpu", dtype="float32").info.dtype == "float32"
    monkeypatch.setenv("PROMPTCLF_DTYPE", "float32")
    assert load_model(str(tiny_llama), device="cpu").info.dtype == "float32"
    monkeypatch.setenv("PROMPTCLF_DTYPE", "float8")
    with pytest.raises(ModelError, match=r"dtype: expected one of auto, .*, got 'float8'"):
        load_model(str(tiny_llama), device="cpu")
