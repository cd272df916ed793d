"""Training that is stopped anywhere goes on as if it never was; damage and mix-ups are refused."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from promptclf.artifacts import verify
from promptclf.classifiers.lora import LoraClassifier
from promptclf.errors import ArtifactError
from promptclf.lm.model import HFModel
from promptclf.settings import TrainConfig
from quick import CONFIG, TASK, adapters, digest, own_model, rows

DROPPING = replace(CONFIG, dropout=0.2, save_steps=2)  # 5 steps an epoch, 10 in all
TRAIN, HELD = rows(20), rows(6, start=100)
Log = dict[int, float]


class Stop(Exception):  # noqa: N818
    """Raised by a callback to interrupt training."""


class Recorder:
    """A callback that keeps losses, and stops at a step if told to."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.losses: Log = {}
        self.epochs: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            self.epochs.append(event)
            return
        self.losses[event["step"]] = event["loss"]
        if event["step"] == self.stop_at:
            raise Stop


@pytest.fixture(scope="module")
def model(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> HFModel:
    return own_model(tiny_folders["llama"], tmp_path_factory.mktemp("own"))


def fit(
    model: HFModel, folder: Path | None, config: TrainConfig = DROPPING, **options: Any
) -> tuple[LoraClassifier, Recorder]:
    recorder = Recorder(options.pop("stop_at", None))
    data, held = options.pop("data", TRAIN), options.pop("held", HELD)
    task = options.pop("task", TASK)
    classifier = LoraClassifier(task, model, config=config, callback=recorder, checkpoints=folder, **options)
    return classifier.fit(*data, validation=held), recorder


def interrupt(model: HFModel, folder: Path, stop_at: int, **options: Any) -> None:
    with pytest.raises(Stop):
        fit(model, folder, stop_at=stop_at, **options)


@pytest.fixture(scope="module")
def whole(model: HFModel) -> tuple[LoraClassifier, Recorder]:
    """The run that nothing interrupts, without checkpoints."""
    return fit(model, None)


# ---- resuming -------------------------------------------------------------------------------------


def test_checkpoints_do_not_change_training(
    model: HFModel, whole: tuple[LoraClassifier, Recorder], tmp_path: Path
) -> None:
    classifier, log = fit(model, tmp_path)
    assert log.losses == whole[1].losses
    assert digest(classifier) == digest(whole[0])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint-00000006", "checkpoint-00000008", "checkpoint-00000010"]  # the last three
    for name in names:
        verify(tmp_path / name)


@pytest.mark.parametrize("stop_at", [1, 3, *random.Random(0).sample(range(5, 10), 3)])
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    model: HFModel, whole: tuple[LoraClassifier, Recorder], tmp_path: Path, stop_at: int
) -> None:
    interrupt(model, tmp_path, stop_at)
    classifier, log = fit(model, tmp_path, resume=True)
    first = (stop_at - 1) // 5 * 5 if (stop_at - 1) % 5 < 2 else 0
    assert min(log.losses) > first  # it did not start again
    assert log.losses == {step: loss for step, loss in whole[1].losses.items() if step in log.losses}
    assert digest(classifier) == digest(whole[0])
    assert classifier.training_["history"] == whole[0].training_["history"]
    assert classifier.temperature_ == whole[0].temperature_


def test_resuming_where_nothing_is_starts_anew(
    model: HFModel, whole: tuple[LoraClassifier, Recorder], tmp_path: Path
) -> None:
    assert digest(fit(model, tmp_path / "new", resume=True)[0]) == digest(whole[0])


def test_resuming_a_finished_run_trains_no_more(
    model: HFModel, whole: tuple[LoraClassifier, Recorder], tmp_path: Path
) -> None:
    first, _ = fit(model, tmp_path)
    classifier, log = fit(model, tmp_path, resume=True)
    assert not log.losses
    assert classifier.training_["minutes"] > 0.5 * first.training_["minutes"]  # all the time it took
    assert digest(classifier) == digest(whole[0])
    assert classifier.temperature_ == whole[0].temperature_


def test_parts_of_a_batch_resume_too(model: HFModel, tmp_path: Path) -> None:
    config = replace(DROPPING, accumulation=2)
    expected, log = fit(model, None, config)
    interrupt(model, tmp_path, 9, config=config)
    resumed, rest = fit(model, tmp_path, config, resume=True)
    assert rest.losses == {step: loss for step, loss in log.losses.items() if step > 8}
    assert digest(resumed) == digest(expected)


@pytest.mark.slow
def test_killed_processes_lose_nothing(tiny_llama: Path, tmp_path: Path) -> None:
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, str(here / "killed.py"), str(tiny_llama), str(tmp_path), "10"],
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["killed_in_save"] >= 1
    assert (tmp_path / "digest").read_text() == result["whole"]
    assert all(name.startswith("checkpoint-") for name in result["left"])  # no rubbish, nothing damaged

    def read(name: str) -> list[tuple[int, str]]:
        lines = (tmp_path / name).read_text().splitlines()
        return [(int(step), loss) for step, loss in (line.split() for line in lines)]

    whole = dict(read("whole.log"))
    assert len(whole) == 40
    repeated = read("killed.log")
    assert len(repeated) > len(whole)  # it was killed indeed
    assert dict(repeated).keys() == whole.keys()
    assert all(loss == whole[step] for step, loss in repeated)


# ---- damage and mix-ups ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interrupted(model: HFModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of steps 5, 6 and 8."""
    folder = tmp_path_factory.mktemp("interrupted")
    interrupt(model, folder, 9)
    return folder


FILES = [
    "MANIFEST.json",
    "adapter.safetensors",
    "best.safetensors",
    "optimizer.bin",
    "progress.json",
    "random_states_0.pkl",
    "scheduler.bin",
]


def test_these_are_the_files_of_a_checkpoint(interrupted: Path) -> None:
    names = [path.name for path in (interrupted / "checkpoint-00000008").iterdir()]
    assert sorted(names) == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    model: HFModel,
    whole: tuple[LoraClassifier, Recorder],
    interrupted: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    folder = Path(shutil.copytree(interrupted, tmp_path / "run"))
    damaged = folder / "checkpoint-00000008" / name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 4
    damaged.write_bytes(content)
    with caplog.at_level(logging.INFO, "promptclf"):
        classifier, log = fit(model, folder, resume=True)
    assert f"{damaged} is damaged" in caplog.text
    assert "renamed to damaged-checkpoint-00000008" in caplog.text
    assert min(log.losses) == 7
    assert digest(classifier) == digest(whole[0])


def test_the_same_step_may_be_damaged_twice(model: HFModel, interrupted: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(interrupted, tmp_path / "run"))
    for _ in range(2):
        (folder / "checkpoint-00000008" / "optimizer.bin").unlink()
        with pytest.raises(Stop):
            fit(model, folder, resume=True, stop_at=9)
    assert sorted(path.name for path in folder.glob("*8")) == [
        "checkpoint-00000008",
        "damaged-checkpoint-00000008",
    ]


def test_without_any_sound_checkpoint_training_starts_anew(
    model: HFModel, whole: tuple[LoraClassifier, Recorder], interrupted: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(interrupted, tmp_path / "run"))
    for checkpoint in folder.iterdir():
        (checkpoint / "extra").touch()
    classifier, log = fit(model, folder, resume=True)
    assert min(log.losses) == 1
    assert digest(classifier) == digest(whole[0])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data": rows(20, start=1)}, "data"),
        ({"held": rows(6, start=101)}, "data"),
        ({"task": replace(TASK, labels=("delivery", "billing", "account"))}, "labels"),
        ({"config": replace(DROPPING, learning_rate=1e-4)}, "config"),
        ({"config": replace(DROPPING, class_weights="balanced")}, "data, config"),
        ({"seed": 1}, "seed"),
        ({"template": "question"}, "data, template"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    model: HFModel, interrupted: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    folder, before = Path(shutil.copytree(interrupted, tmp_path / "run")), adapters(model)
    with pytest.raises(ArtifactError, match=rf"checkpoint-00000008 belongs to another run: {named} changed"):
        fit(model, folder, resume=True, **change)
    assert sorted(path.name for path in folder.iterdir()) == sorted(p.name for p in interrupted.iterdir())
    assert adapters(model) == before


def test_another_base_model_is_refused(
    tiny_folders: dict[str, Path], interrupted: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(interrupted, tmp_path / "run"))
    other = own_model(tiny_folders["qwen3"], tmp_path / "other")
    with pytest.raises(ArtifactError, match=r"belongs to another run: .*base_model.* changed"):
        fit(other, folder, resume=True)


def test_a_new_run_does_not_touch_the_checkpoints_of_another(model: HFModel, interrupted: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in interrupted.rglob("*")}
    with pytest.raises(ArtifactError, match="holds checkpoints of an earlier run; resume it or choose"):
        fit(model, interrupted)
    assert {path: path.stat().st_mtime_ns for path in interrupted.rglob("*")} == before


def test_a_full_disk_stops_the_run_and_keeps_what_is_there(
    model: HFModel, whole: tuple[LoraClassifier, Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, writes, before = os.fsync, iter(range(1000)), adapters(model)

    def fsync(handle: int) -> None:
        if next(writes) > 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(ArtifactError, match=r"checkpoint-\d+: the disk is full .* before is kept"):
            fit(model, tmp_path)
    assert all(path.name.startswith("checkpoint-") for path in tmp_path.iterdir())
    assert adapters(model) == before
    assert digest(fit(model, tmp_path, resume=True)[0]) == digest(whole[0])
