"""promptclf's own folder, and what is kept there of what takes time to find out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from promptclf.home import home, is_sha256, remembered, stamp


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PROMPTCLF_HOME", str(tmp_path / "home"))
    return home()


class Finder:
    """Finds one answer after the other."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    def __call__(self) -> str:
        return self.answers.pop(0)


def test_what_was_found_is_not_found_again() -> None:
    find = Finder("red", "blue")
    assert [remembered("colour", {"of": "sky"}, find, str.islower) for _ in range(3)] == ["red"] * 3
    assert remembered("colour", {"of": "sea"}, find, str.islower) == "blue"
    assert find.answers == []


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"value": 3}', '{"value": "RED"}', "\ud800"])
def test_a_damaged_file_is_written_anew(own_home: Path, damage: str) -> None:
    find = Finder("red", "blue")
    remembered("colour", {}, find, str.islower)
    (file,) = (own_home / "known").iterdir()
    file.write_text(damage, encoding="utf-8", errors="surrogatepass")
    for _ in range(2):
        assert remembered("colour", {}, find, str.islower) == "blue"
    assert list((own_home / "known").iterdir()) == [file]


def test_a_folder_that_cannot_be_written_costs_only_time(own_home: Path) -> None:
    own_home.write_text("a file", encoding="utf-8")
    find = Finder("red", "blue")
    assert [remembered("colour", {}, find, str.islower) for _ in range(2)] == ["red", "blue"]


def test_a_stamp_notices_what_keeps_its_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    os.utime(file, ns=(10**18, 10**18))
    before = stamp([file])
    assert stamp([file]) == before
    file.write_bytes(b"two")
    os.utime(file, ns=(10**18, 10**18))
    assert stamp([file]) != before


def test_a_hash_is_told_from_other_text() -> None:
    assert is_sha256("0" * 63 + "f")
    assert not any(map(is_sha256, ["", "0" * 63, "g" * 64, "F" * 64]))
