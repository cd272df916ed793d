"""Folders that appear complete or not at all, and are verified before use.

A folder is written beside its final place, flushed to disk, listed in ``MANIFEST.json`` with the size
and SHA-256 of every file, and only then renamed. Whoever opens it verifies the list first: a flipped
bit, a missing or an added file is refused by name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from promptclf.errors import ArtifactError

MANIFEST = "MANIFEST.json"
FORMAT = 1
# Written or edited by a Hub or a person; never read by us.
FOREIGN = {".gitattributes", ".gitignore", ".cache", ".huggingface", "README.md"}


@contextmanager
def publish(folder: str | Path, meta: Mapping[str, Any]) -> Iterator[Path]:
    """Write a folder atomically: yields a staging folder that becomes `folder` on success.

    Parameters
    ----------
    folder
        Where it shall appear. An earlier published folder there is replaced; anything else is refused.
    meta
        What the content belongs to (JSON); `verify` returns it.

    Raises
    ------
    ArtifactError
        If `folder` holds something that was not published, or the disk is full.
    """
    folder = Path(folder)
    if folder.exists() and (
        not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST).is_file())
    ):
        raise ArtifactError(f"{folder} exists and was not made by promptclf; choose another place")
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}.staging-", dir=folder.parent))
    stage.chmod(0o755)
    try:
        yield stage
        for file in filter(Path.is_file, stage.rglob("*")):
            file.chmod(0o644)  # safetensors writes what nobody else may read
        seal(stage, meta)
        _replace(stage, folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            free = shutil.disk_usage(folder.parent).free
            raise ArtifactError(
                f"cannot write {folder}: the disk is full ({free} bytes free); what was there before is kept"
            ) from error
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def seal(stage: Path, meta: Mapping[str, Any]) -> None:
    """List every file of a finished folder in its manifest and flush all to disk."""
    files = {name: _entry(stage / name) for name in _names(stage)}
    manifest: dict[str, Any] = {"format": FORMAT, "meta": dict(meta), "files": files}
    manifest["sha256"] = _digest_of(manifest)
    (stage / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
    for name in (*files, MANIFEST):
        with (stage / name).open("rb") as file:
            os.fsync(file.fileno())
    _sync_folder(stage)


def verify(folder: str | Path) -> dict[str, Any]:
    """Check every file against the manifest and return what was stored as `meta`.

    Raises
    ------
    ArtifactError
        If the manifest is missing or a file is missing, added or different; the message names it.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files, meta, version = manifest["files"], manifest["meta"], manifest["format"]
        entries = {str(name): (int(e["size"]), str(e["sha256"])) for name, e in files.items()}
        intact = manifest.pop("sha256") == _digest_of(manifest)
    except FileNotFoundError as error:
        raise ArtifactError(f"{folder}: expected a folder saved by promptclf, found no {MANIFEST}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{folder / MANIFEST} is damaged; save the classifier again") from error
    if version == FORMAT and not (intact and isinstance(meta, dict)):
        raise ArtifactError(f"{folder / MANIFEST} is damaged; save the classifier again")
    if version != FORMAT:
        raise ArtifactError(
            f"{folder / MANIFEST}: expected format {FORMAT}, got {version!r}; update promptclf"
        )
    entries = {name: entry for name, entry in entries.items() if name not in FOREIGN}
    present = set(_names(folder)) - {MANIFEST}
    if missing := sorted(set(entries) - present):
        raise ArtifactError(f"{folder / missing[0]} is missing; copy the folder again")
    if added := sorted(present - set(entries)):
        raise ArtifactError(f"{folder / added[0]} does not belong to what was saved; remove it")
    for name, (size, digest) in entries.items():
        found = _entry(folder / name)
        if (found["size"], found["sha256"]) != (size, digest):
            raise ArtifactError(
                f"{folder / name} is damaged: its content is not what was saved; copy it again"
            )
    return dict(meta)


def write_text(path: Path, text: str) -> None:
    """Write a text file so that it is never seen half-written."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, delete=False, encoding="utf-8", newline=""
    ) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _digest_of(manifest: Mapping[str, Any]) -> str:
    """The hash of everything a manifest says."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _names(folder: Path) -> list[str]:
    files = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file() or p.is_symlink())
    return sorted(f.as_posix() for f in files if f.parts[0] not in FOREIGN)


def _entry(path: Path) -> dict[str, Any]:
    if path.is_symlink() and not path.exists():
        raise ArtifactError(f"{path} is a link to nothing; copy the folder again")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}


def _replace(stage: Path, folder: Path) -> None:
    old = None
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old-", dir=folder.parent)) / "content"
        folder.rename(old)
    try:
        stage.rename(folder)
    except OSError:
        if old is not None:
            old.rename(folder)
        raise
    _sync_folder(folder.parent)
    if old is not None:
        shutil.rmtree(old.parent, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
