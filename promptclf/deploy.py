"""A Hugging Face Space: which files it needs, and sending them.

What is sent is exactly what belongs to promptclf: in a checkout the files that git tracks, otherwise
those that the installed package's record names. Runs, settings and data of the user are neither.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from promptclf.errors import PromptClfError
from promptclf.lm.embedded import HUB_ID

logger = logging.getLogger(__name__)

PACKAGE = Path(__file__).parent
#: What stands at the top of a Space -> where it is in a checkout. A wheel has it in promptclf/space/.
TOP = {
    "README.md": "spaces/README.md",
    "requirements.txt": "spaces/requirements.txt",
    "app.py": "app.py",
    "LICENSE": "LICENSE",
}
FOLDERS = ("promptclf", "prompts")
PATIENCE = 1800  # seconds; a build takes minutes, and the Hub itself gives up after 30
SETTLING = 60  # until the Hub has noticed a commit
POLL = 3.0
LOG_LINES = 20


# ---- what belongs to it ------------------------------------------------------------------------------


def space_files() -> dict[str, Path]:
    """Every file of a Space: its path there, with slashes, and where it is here.

    Raises
    ------
    PromptClfError
        If it cannot be told which files belong to promptclf, or some are missing.
    """
    found = _recorded() if (PACKAGE / "space").is_dir() else _tracked(PACKAGE.parent)
    kept = {
        name: path
        for name, path in sorted(found.items())
        if not any(part.startswith(".") for part in name.split("/")) and not path.is_symlink()
    }
    needed = [*TOP, "promptclf/__init__.py"]
    if missing := [name for name in needed if name not in kept or not kept[name].is_file()]:
        raise PromptClfError(
            f"a Space needs {missing[0]}, which is not among the files of promptclf in {PACKAGE.parent}; "
            "deploy from a whole checkout, or from an installed wheel"
        )
    return kept


def _tracked(root: Path) -> dict[str, Path]:
    """The files that git tracks and that still exist."""
    try:
        names = [name for name in _git_files(root, *TOP.values()) if (root / name).is_file()]
        new = _git_files(root, "--others", "--exclude-standard")
    except (OSError, subprocess.CalledProcessError) as error:
        raise PromptClfError(
            "cannot tell which files belong to promptclf: expected a git checkout or an installed wheel, "
            f"got {root}; deploy from one of these"
        ) from error
    if new:
        logger.warning("not sent, because git does not track them: %s", ", ".join(new))
    moved = {where: name for name, where in TOP.items()}
    return {moved.get(name, name): root / name for name in names}


def _git_files(root: Path, *more: str) -> list[str]:
    command = ["git", "ls-files", "-z", *more, *FOLDERS]
    done = subprocess.run(command, cwd=root, capture_output=True, check=True)
    return [name for name in done.stdout.decode().split("\0") if name]


def _recorded() -> dict[str, Path]:
    """The files that the record of the installed wheel names, in the places that a checkout has for them."""
    record = metadata.distribution("promptclf").files or []
    places = {"promptclf/space/": "", "promptclf/prompts/": "prompts/", "promptclf/": "promptclf/"}
    found = {}
    for file in record:
        for start, place in places.items():
            if file.as_posix().startswith(start) and file.suffix != ".pyc":
                name = place + file.as_posix().removeprefix(start)
                found[name] = Path(str(file.locate()))
                break
    return found


def stage(folder: str | Path, *, model: str = HUB_ID) -> dict[str, int]:
    """Copy the files of a Space to an empty folder.

    Parameters
    ----------
    folder
        It is made if it is not there.
    model
        The Hub id that the card names. Only the default model is put into the image when it is built:
        which files another repository has, and whether it is public, is not known here.

    Returns
    -------
    Path -> size in bytes.

    Raises
    ------
    PromptClfError
        As for `space_files`, or if the folder is not empty or the model no Hub id.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise PromptClfError(f"model: expected a Hub id owner/name, got {model!r}; a Space has no other")
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise PromptClfError(f"{folder}: expected an empty folder; name another one")
    files = space_files()
    for name, path in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    if model != HUB_ID:
        _name_model(folder / "README.md", model)
    return {name: (folder / name).stat().st_size for name in files}


def _name_model(card: Path, model: str) -> None:
    _, front, body = card.read_text(encoding="utf-8").split("---\n", 2)
    values = yaml.safe_load(front)
    values["models"] = [model]
    values.pop("preload_from_hub", None)
    front = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    card.write_text(f"---\n{front}---\n{body}", encoding="utf-8")


# ---- sending it ----------------------------------------------------------------------------------------


def deploy(
    space: str,
    *,
    model: str = HUB_ID,
    quantization: str = "none",
    hardware: str | None = None,
    private: bool = False,
    dry_run: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Create a Space or bring it up to date, and wait until it runs.

    Files of an earlier deployment that are no longer needed are removed; what else lies there stays.

    Parameters
    ----------
    space
        ``owner/name``.
    model, quantization
        What the app is to load; the Space's variables PROMPTCLF_MODEL and PROMPTCLF_QUANTIZATION.
    hardware
        A flavour such as "zero-a10g" or "cpu-basic"; None: what the Space has, or the Hub's default.
    private
        Make it visible to its owner only; otherwise it stays as visible as it is.
    dry_run
        Say what would be sent, and ask nothing of the network.
    tell
        Called with one line about each step.

    Returns
    -------
    "space", "address", "hardware", "private", "variables" (name -> value), "files" (path -> bytes),
    "dry_run", and unless it was one: "commit" and "stage".

    Raises
    ------
    PromptClfError
        If something is missing, the Hub refuses, or the Space does not come up.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", space):
        raise PromptClfError(f"space: expected owner/name, got {space!r}")
    from huggingface_hub import HfApi, get_token

    variables = {"PROMPTCLF_MODEL": model, "PROMPTCLF_QUANTIZATION": quantization}
    with tempfile.TemporaryDirectory() as folder:
        files = stage(Path(folder) / "space", model=model)
        api = HfApi()
        plan: dict[str, Any] = {
            "space": space,
            "address": f"{api.endpoint}/spaces/{space}",
            "hardware": hardware,
            "private": private,
            "variables": variables,
            "files": files,
            "dry_run": dry_run,
        }
        if dry_run:
            return plan
        if get_token() is None:
            raise PromptClfError("the Hub needs a token that may write: run hf auth login, or set HF_TOKEN")
        with _told(space):
            _prepare(api, space, variables, hardware, private, tell)
            tell(f"sending {len(files)} files ({sum(files.values()) / 1e6:.1f} MB)")
            commit = api.upload_folder(
                repo_id=space,
                repo_type="space",
                folder_path=Path(folder) / "space",
                commit_message="Deploy promptclf",
                delete_patterns=[f"{name}/*" for name in FOLDERS],
            ).oid
            tell("waiting until the Space runs; a first build takes some minutes")
            stage_reached = _wait(api, space, str(commit))
    return {**plan, "commit": str(commit), "stage": stage_reached}


def _prepare(
    api: Any,
    space: str,
    variables: Mapping[str, str],
    hardware: str | None,
    private: bool,
    tell: Callable[[str], None],
) -> None:
    """Create the Space, or set what is to be different in the one that is there."""
    if not api.repo_exists(space, repo_type="space"):
        tell(f"creating {space}")
        api.create_repo(
            space,
            repo_type="space",
            space_sdk="gradio",
            space_hardware=hardware,
            space_variables=[{"key": key, "value": value} for key, value in variables.items()],
            private=private or None,
        )
        return
    there = set(api.list_repo_files(space, repo_type="space"))
    if "app.py" in there and "promptclf/__init__.py" not in there:
        raise PromptClfError(f"space: {space} holds another app; choose another name, or delete it")
    if private:
        api.update_repo_settings(space, repo_type="space", visibility="private")
    known = {key: variable.value for key, variable in api.get_space_variables(space).items()}
    for key, value in variables.items():
        if known.get(key) != value:
            api.add_space_variable(space, key, value)
    runtime = api.get_space_runtime(space)
    if hardware is not None and hardware != (runtime.requested_hardware or runtime.hardware):
        api.request_space_hardware(space, hardware)


def _wait(api: Any, space: str, commit: str) -> str:
    """Wait until the Space runs this commit."""
    begin = time.monotonic()
    while True:
        left = PATIENCE - (time.monotonic() - begin)
        runtime = api.wait_for_space(space, timeout=max(0, left), poll_interval=POLL)
        # For a moment after a commit, the Hub still tells what was before it; and a Space that was
        # paused stays so.
        built = runtime.raw.get("sha")
        settled = time.monotonic() - begin > SETTLING and (built is None or runtime.stage != "RUNNING")
        if built == commit or settled:
            break
        if left <= 0:
            raise TimeoutError
        time.sleep(POLL)
    if runtime.stage != "RUNNING":
        building = runtime.stage in ("BUILD_ERROR", "CONFIG_ERROR", "NO_APP_FILE")
        reason = runtime.raw.get("errorMessage") or _last_lines(api, space, building)
        raise PromptClfError(f"space: {space} was sent, but it is {runtime.stage}: {reason}")
    return str(runtime.stage)


def _last_lines(api: Any, space: str, building: bool) -> str:
    """The end of a Space's log."""
    try:
        lines = list(api.fetch_space_logs(space, build=building))[-LOG_LINES:]
    except Exception:  # it only adds to an error that is told anyway
        return "its log cannot be read; look at its page"
    return " | ".join(line.strip() for line in lines if line.strip()) or "its log is empty"


@contextmanager
def _told(space: str) -> Iterator[None]:
    """What the Hub refuses, in one line."""
    try:
        yield
    except PromptClfError:
        raise
    except TimeoutError as error:
        raise PromptClfError(
            f"space: {space} was sent, but does not run after {PATIENCE / 60:.0f} minutes"
        ) from error
    except Exception as error:  # a dozen types, from the network to the validation of names
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise PromptClfError(f"space: {space} cannot be deployed: {reason}") from error
