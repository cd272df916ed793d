"""Folders appear complete or not at all, and nothing damaged is opened."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from promptclf.artifacts import MANIFEST, publish, verify, write_text
from promptclf.errors import ArtifactError

META = {"mode": "lora", "labels": ["None", "01", "物流"], "rate": 0.001}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A published folder."""
    write(tmp_path / "out", "one")
    return tmp_path / "out"


def write(folder: Path, text: str, meta: dict[str, Any] = META) -> None:
    with publish(folder, meta) as stage:
        (stage / "a.json").write_text(text)
        (stage / "b.bin").write_bytes(bytes(range(256)) * 40)
        (stage / "empty").touch()
        (stage / "sub").mkdir()
        (stage / "sub" / "c.txt").write_text("c")


def beside(folder: Path) -> list[str]:
    """What lies in the parent folder: the folder alone, if nothing was left behind."""
    return sorted(path.name for path in folder.parent.iterdir())


# ---- publishing -----------------------------------------------------------------------------------


def test_what_was_published_is_verified(folder: Path) -> None:
    assert verify(folder) == META
    assert verify(str(folder)) == META
    assert json.loads((folder / MANIFEST).read_text())["files"].keys() == {
        "a.json",
        "b.bin",
        "empty",
        "sub/c.txt",
    }
    assert beside(folder) == ["out"]
    assert folder.stat().st_mode & 0o777 == 0o755


def test_parents_are_made(tmp_path: Path) -> None:
    write(tmp_path / "x" / "y" / "out", "one")
    verify(tmp_path / "x" / "y" / "out")


def test_an_earlier_publication_is_replaced_whole(folder: Path) -> None:
    with publish(folder, {"n": 2}) as stage:
        (stage / "new").touch()
    assert verify(folder) == {"n": 2}
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, "new"]
    assert beside(folder) == ["out"]


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", "one")
    verify(tmp_path / "out")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_somebody_else_made_is_not_overwritten(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thesis"
    if kind == "folder":
        path.mkdir()
    precious = path / "chapter1" if kind == "folder" else path
    precious.write_text("years of work")
    with pytest.raises(ArtifactError, match=r"thesis exists and was not made by promptclf; choose another"):
        write(path, "one")
    assert precious.read_text() == "years of work"
    assert beside(path) == ["thesis"]


def test_a_crash_while_writing_leaves_the_old_one(folder: Path) -> None:
    def crash() -> None:
        with publish(folder, META) as stage:
            (stage / "a.json").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert verify(folder) == META
    assert (folder / "a.json").read_text() == "one"
    assert beside(folder) == ["out"]


def test_a_crash_before_anything_was_there_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="crash"), publish(tmp_path / "out", META):
        raise ValueError("crash")
    assert beside(tmp_path / "out") == []


def test_a_rename_that_fails_puts_the_old_one_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if "staging" in self.name:
            raise OSError(errno.EIO, "cannot rename")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="cannot rename"):
        write(folder, "two")
    assert verify(folder) == META
    assert (folder / "a.json").read_text() == "one"


@pytest.mark.parametrize("moment", ["while a file is written", "while the manifest is written"])
def test_a_full_disk_is_said_and_leaves_the_old_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    if moment == "while the manifest is written":
        monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(full))

    def work() -> None:
        with publish(folder, META) as stage:
            (stage / "a.json").write_text("two")
            if moment == "while a file is written":
                raise full

    with pytest.raises(
        ArtifactError,
        match=r"cannot write .*out: the disk is full \(\d+ bytes free\); what was there before is kept",
    ):
        work()
    assert verify(folder) == META
    assert (folder / "a.json").read_text() == "one"
    assert beside(folder) == ["out"]


def test_everything_is_on_the_disk_before_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        assert (tmp_path / "out").exists() == (synced[-1] == tmp_path.name)  # the parent comes last
        real(handle)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fsync", fsync)
    write(tmp_path / "out", "one")
    assert {"a.json", "b.bin", "empty", "c.txt", MANIFEST, tmp_path.name} <= set(synced)


def test_text_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    write_text(path, "one\n")
    write_text(path, "zwei ü\r\n")
    assert path.read_bytes() == "zwei ü\r\n".encode()
    assert path.stat().st_mode & 0o777 == 0o644
    assert beside(path) == ["report.md"]


# ---- verifying ------------------------------------------------------------------------------------


def test_any_flipped_bit_is_refused_by_name(folder: Path) -> None:
    rng = random.Random(0)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size):
        content = path.read_bytes()
        for place in [0, len(content) - 1, *(rng.randrange(len(content)) for _ in range(20))]:
            changed = bytearray(content)
            changed[place] ^= 1 << rng.randrange(8)
            path.write_bytes(changed)
            with pytest.raises(ArtifactError, match=path.name):
                verify(folder)
        path.write_bytes(content)
    assert verify(folder) == META


@pytest.mark.parametrize("name", ["a.json", "b.bin", "empty", "sub/c.txt"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=rf"{name} is missing; copy the folder again"):
        verify(folder)


@pytest.mark.parametrize("name", ["z.pkl", "sub/z.py", ".hidden", "sub/.gitattributes"])
def test_an_added_file_is_named(folder: Path, name: str) -> None:
    (folder / name).touch()
    with pytest.raises(ArtifactError, match=rf"{name} does not belong to what was saved; remove it"):
        verify(folder)


def test_what_a_hub_adds_is_ignored(folder: Path) -> None:
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "x.metadata").touch()
    assert verify(folder) == META


def test_a_cut_file_is_named(folder: Path) -> None:
    with (folder / "b.bin").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(ArtifactError, match=r"b\.bin is damaged: its content is not what was saved"):
        verify(folder)


def test_a_grown_file_is_named(folder: Path) -> None:
    with (folder / "empty").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ArtifactError, match="empty is damaged"):
        verify(folder)


def test_swapped_files_are_refused(folder: Path) -> None:
    first, second = (folder / "a.json").read_bytes(), (folder / "sub" / "c.txt").read_bytes()
    (folder / "a.json").write_bytes(second)
    (folder / "sub" / "c.txt").write_bytes(first)
    with pytest.raises(ArtifactError, match=r"a\.json is damaged"):
        verify(folder)


def test_a_link_to_nothing_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "a.json").unlink()
    (folder / "a.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"a\.json is a link to nothing"):
        verify(folder)


def test_links_to_the_same_content_are_fine(folder: Path, tmp_path: Path) -> None:
    """The Hub's cache is made of links."""
    shutil.move(folder / "a.json", tmp_path / "blob")
    (folder / "a.json").symlink_to(tmp_path / "blob")
    assert verify(folder) == META


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"expected a folder saved by promptclf, found no MANIFEST\.json"):
        verify(tmp_path / "nothing")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"format": 1}',
        '{"format": 1, "meta": {}, "files": [], "sha256": ""}',
        '{"format": 1, "meta": {}, "files": {"a": {"size": "x", "sha256": ""}}, "sha256": ""}',
        '{"format": 1, "meta": {}, "files": {"a": 7}, "sha256": ""}',
        '{"format": 1, "meta": [], "files": {}, "sha256": ""}',
        "[" * 100_000,
        "\udcff",
    ],
)
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ArtifactError, match=r"MANIFEST\.json is damaged; save the classifier again"):
        verify(folder)


def test_an_edited_manifest_is_refused(folder: Path) -> None:
    """What it says of the content beside the files counts too, such as the labels."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["meta"]["labels"] = ["other"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"MANIFEST\.json is damaged"):
        verify(folder)


def test_a_later_format_asks_for_a_later_program(folder: Path) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(ArtifactError, match="expected format 1, got 2; update promptclf"):
        verify(folder)
