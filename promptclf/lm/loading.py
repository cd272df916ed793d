"""Loading a model: embedded, from a folder or from the Hub, quantised where that works."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import weakref
from functools import partial
from pathlib import Path
from typing import Any, Literal

from promptclf.data.hub import may_be_on_hub
from promptclf.errors import ModelError
from promptclf.home import is_sha256, remembered, stamp
from promptclf.lm.embedded import HUB_ID, PACKAGE, embedded_folder, find_gguf
from promptclf.lm.model import HFModel, ModelInfo
from promptclf.lm.precision import KINDS, fastest
from promptclf.quiet import hush_casts, quiet

logger = logging.getLogger(__name__)

Quantization = Literal["none", "int8", "nf4"]
Device = Literal["auto", "cpu", "cuda", "mps"]
QUANTIZATIONS = ("none", "int8", "nf4")
WHOLE_HASH_BYTES = 2**30  # larger weights are told apart by samples

_loaded: weakref.WeakValueDictionary[tuple[Any, ...], HFModel] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def load_model(
    name: str = "embedded",
    *,
    quantization: Quantization = "none",
    device: Device = "auto",
    dtype: str = "auto",
    revision: str | None = None,
) -> HFModel:
    """Load a causal language model.

    The same arguments give the same object as long as it is in use somewhere.

    Parameters
    ----------
    name
        "embedded" (SmolLM2-135M-Instruct from an installed package), a folder in Hugging Face
        format, or a Hub id. Only safetensors are read, and no code that comes with a model is run.
    quantization
        "int8" or "nf4" (4 bits, double quantisation), both by bitsandbytes. Where it cannot run, a
        warning is logged and the unquantised model is loaded; ``info.quantization`` tells.
    device
        "auto" takes CUDA or MPS where there is one.
    dtype
        "auto" is what is fastest here: two small products are timed once on a machine, float32 against
        bfloat16 (float16 on a GPU without it). On a CPU half the bits must be 1.2 times as fast to be
        chosen, on CUDA no more than 1.2 times as slow; MPS computes in float32. Or "float32",
        "bfloat16", "float16"; the environment variable ``PROMPTCLF_DTYPE`` takes the place of "auto".
        ``info.dtype`` tells what is in use, and so does the provenance of every result.
    revision
        A Hub branch, tag or commit; the commit in use is recorded.

    Raises
    ------
    ModelError
        If an argument is unknown, or the model cannot be found or loaded.
    """
    if quantization not in QUANTIZATIONS:
        raise ModelError(f"quantization: expected one of {', '.join(QUANTIZATIONS)}, got {quantization!r}")
    if dtype == "auto":
        dtype = os.environ.get("PROMPTCLF_DTYPE") or dtype
    if dtype not in ("auto", *KINDS):
        raise ModelError(f"dtype: expected one of auto, {', '.join(KINDS)}, got {dtype!r}")
    spec: dict[str, Any] = {"name": str(name), "quantization": quantization, "device": device, "dtype": dtype}
    spec["revision"] = revision
    # A folder may be written anew while what lay there is loaded.
    files = sorted(Path(name).glob("*.safetensors")) if Path(name).is_dir() else []
    state = [(file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files]
    key = (*spec.values(), *state)
    with _loading:
        model = _loaded.get(key)
        if model is None:
            new = _load(spec)  # what "auto" came to may be in use already
            model = _loaded[key] = _loaded.setdefault((*new.spec.values(), *state), new)
        return model


def _load(spec: dict[str, Any]) -> HFModel:
    from transformers import AutoTokenizer

    where, source, known_revision = _locate(spec["name"], spec["revision"])
    place = _device(spec["device"])
    options: dict[str, Any] = {"trust_remote_code": False, "revision": spec["revision"]}
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(where, **options)
            kind = _dtype(spec["dtype"], place, where, options)
            module, used = _weights(where, spec["quantization"], place, kind, options)
    except Exception as error:  # each kind of damage fails in its own way; the reason is shown
        reason = " ".join(str(error).split())[:400]
        if source.startswith(PACKAGE):
            raise ModelError(
                f"cannot load the embedded model: {reason}; delete {where} and it is converted again"
            ) from error
        raise _unloadable(spec["name"], source, error) from error
    module.eval().requires_grad_(False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    info = ModelInfo(
        name=spec["name"] if not Path(spec["name"]).is_dir() else Path(spec["name"]).resolve().name,
        source=source,
        revision=known_revision or getattr(module.config, "_commit_hash", None) or "unknown",
        quantization=used,
        requested_quantization=spec["quantization"],
        device=place,
        dtype=str(kind).removeprefix("torch."),
    )
    # Another process, or this one later, gets the very same: "auto" could mean something else there.
    commit = info.revision if source == "hub" and info.revision != "unknown" else spec["revision"]
    return HFModel(module, tokenizer, info, {**spec, "dtype": info.dtype, "revision": commit})


def model_revision(name: str) -> str:
    """What `ModelInfo.revision` will be, without loading the weights: it tells two models of one name apart.

    Raises
    ------
    ModelError
        If the model cannot be found.
    """
    from transformers import AutoConfig

    where, source, known = _locate(name, None)
    if known is None:
        try:
            with quiet():
                config = AutoConfig.from_pretrained(where, trust_remote_code=False)
        except Exception as error:  # as in loading
            raise _unloadable(name, source, error) from error
        known = getattr(config, "_commit_hash", None) or "unknown"
    return known


def _unloadable(name: str, source: str, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())[:400]
    kind = "no folder of that name is here, and as a Hub id it fails" if source == "hub" else "it is damaged"
    return ModelError(
        f"cannot load the model {name!r}: expected 'embedded', a folder or a Hub id owner/name of a causal "
        f"language model with safetensors weights; {kind}: {reason}"
    )


def load_copy(model: HFModel) -> Any:
    """A second, unquantised copy of a model's module, for changes that the shared one must not see.

    On a CPU it is in float32, whatever the model is in: what comes of it is saved.
    """
    import torch
    from transformers import AutoModelForCausalLM

    where, _, _ = _locate(model.spec["name"], revision := model.spec["revision"])
    options = {"trust_remote_code": False, "revision": revision, "use_safetensors": True}
    with quiet():
        kind = torch.float32 if model.info.device == "cpu" else getattr(torch, model.info.dtype)
        return AutoModelForCausalLM.from_pretrained(where, dtype=kind, **options)


def _locate(name: str, revision: str | None) -> tuple[str, str, str | None]:
    """What to load from, its source, and its revision where it is known beforehand."""
    if name == "embedded":
        try:
            find_gguf()
        except ModelError as missing:
            if not _hub_has(HUB_ID):
                raise missing from None
            return HUB_ID, "hub", None
        folder, source, digest = embedded_folder()
        return str(folder), source, digest
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{name}: expected a model folder with config.json; there is none")
        return str(folder), "folder", weights_digest(folder)
    if not may_be_on_hub(name):
        raise ModelError(
            f"no model {name!r}: there is no such folder; expected 'embedded', an existing folder or a Hub "
            "id owner/name"
        )
    return name, "hub", None


def _hub_has(repo: str) -> bool:
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(repo, timeout=5)
    except Exception:  # offline, blocked or gone: all the same here
        return False
    return True


def _device(device: str) -> str:
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    if device not in available:
        raise ModelError(f"device: expected one of auto, {', '.join(available)}, got {device!r}")
    if not available[device]:
        raise ModelError(f"device: {device!r} was asked for, but this machine has none; use 'auto' or 'cpu'")
    return device


def _dtype(dtype: str, device: str, where: str, options: dict[str, Any]) -> Any:
    import torch
    from transformers import AutoConfig

    if dtype == "auto":
        dtype = fastest(AutoConfig.from_pretrained(where, **options), device)
    return getattr(torch, dtype)


def _weights(
    where: str, quantization: str, device: str, dtype: Any, options: dict[str, Any]
) -> tuple[Any, str]:
    load = {**options, "dtype": dtype, "use_safetensors": True, "device_map": {"": device}}
    if quantization != "none":
        hush_casts()
        try:
            module = _pretrained(where, {**load, "quantization_config": _quantizer(quantization, dtype)})
            _keep_layout(module)
            module(input_ids=module.dummy_inputs["input_ids"][:, :2].to(module.device) * 0)
            return module, quantization
        except Exception as error:  # each back end fails in its own way; the reason is shown
            logger.warning(
                "%s quantisation does not run here (%s); using the model unquantised",
                quantization,
                " ".join(str(error).split())[:200] or type(error).__name__,
            )
    return _pretrained(where, load), "none"


def _pretrained(where: str, load: dict[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM

    from promptclf.lm.unfilled import made_unfilled

    module, report = made_unfilled(
        partial(AutoModelForCausalLM.from_pretrained, where, output_loading_info=True, **load)
    )
    if missing := sorted(report["missing_keys"]):  # they would be drawn at random without a word
        raise ValueError(f"{len(missing)} weights are missing, such as {missing[0]!r}")
    return module


def _quantizer(quantization: str, dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _keep_layout(module: Any) -> None:
    """Keep bitsandbytes from laying 4-bit weights out anew where the CPU knows AVX512-BF16.

    It would do so in the first prediction: with scales rounded to bfloat16, for rows of whole blocks
    only, and without a gradient from then on, so that later training would learn nothing.
    """
    for layer in module.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def weights_digest(folder: Path) -> str:
    """SHA-256 over a folder's configuration and weights; of large weights, over samples.

    Two fine-tunings of one architecture differ in every layer, so that samples tell them apart.
    """
    files = {"files": stamp([folder / "config.json", *sorted(folder.glob("*.safetensors"))])}
    return remembered("weights", files, lambda: _weights_digest(folder), is_sha256)


def _weights_digest(folder: Path) -> str:
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    files = sorted(folder.glob("*.safetensors"))
    total = sum(file.stat().st_size for file in files)
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}:{size};".encode())
        step = (1 << 20) if total <= WHOLE_HASH_BYTES else max(1 << 20, size // 64)
        with file.open("rb") as stream:
            for offset in range(0, size, step):
                stream.seek(offset)
                digest.update(stream.read(1 << 20))
    return digest.hexdigest()
