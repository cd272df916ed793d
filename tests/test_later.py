"""Modules that are put off: empty until something in them is asked for, then as if imported at once."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from promptclf.later import later

APP = """
import sys
from promptclf.cli import SELDOM
from promptclf.later import later
with later(*SELDOM):
    from promptclf.ui import build_app
    from promptclf.ui.core.service import Service
    build_app(Service(load=lambda: None))
print(*(type(sys.modules[name]).__name__ for name in SELDOM))
"""

SLOW = """
import time
import put_off_log
put_off_log.runs.append(__name__)
time.sleep(0.2)
from put_off_pack import inner
value = 42
"""

FAILS_ONCE = """
import put_off_log
put_off_log.runs.append(__name__)
first = 1
if len(put_off_log.runs) == 1:
    1 / 0
"""


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A package and a module, and the names of what was run of them."""
    (tmp_path / "put_off_log.py").write_text("runs = []\n")
    (tmp_path / "put_off_pack").mkdir()
    (tmp_path / "put_off_pack" / "__init__.py").write_text(SLOW)
    (tmp_path / "put_off_pack" / "inner.py").write_text("depth = 1\n")
    (tmp_path / "put_off_bad.py").write_text(FAILS_ONCE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield importlib.import_module("put_off_log").runs
    for name in [name for name in sys.modules if name.startswith("put_off_")]:
        del sys.modules[name]


def test_it_is_run_when_something_in_it_is_asked_for(pack: list[str]) -> None:
    with later("put_off_pack"):
        import put_off_pack
        import put_off_pack as again

        assert sys.modules["put_off_pack"] is put_off_pack is again
        assert put_off_pack.__name__ == "put_off_pack"
        assert pack == []
    import put_off_pack as outside

    assert outside is put_off_pack
    assert pack == []
    assert put_off_pack.value == 42
    assert put_off_pack.inner.depth == 1
    assert pack == ["put_off_pack"]
    assert type(put_off_pack) is ModuleType
    assert put_off_pack.__spec__ is not None
    assert put_off_pack.__loader__ is put_off_pack.__spec__.loader
    with pytest.raises(AttributeError, match="nothing"):
        _ = put_off_pack.nothing
    assert importlib.reload(put_off_pack) is put_off_pack


def test_a_name_that_is_imported_from_it_runs_it(pack: list[str]) -> None:
    with later("put_off_pack"):
        from put_off_pack import value
    assert value == 42
    assert pack == ["put_off_pack"]


def test_only_named_modules_are_put_off_and_only_in_the_block(pack: list[str]) -> None:
    with later("put_off_other"):
        import put_off_pack  # noqa: F401
    assert pack == ["put_off_pack"]
    with later("put_off_absent"), pytest.raises(ModuleNotFoundError):
        import put_off_absent  # type: ignore[import-not-found]  # noqa: F401
    assert not [finder for finder in sys.meta_path if type(finder).__module__ == later.__module__]


def test_threads_that_ask_at_once_wait_until_all_is_there(pack: list[str]) -> None:
    with later("put_off_pack"):
        import put_off_pack
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(put_off_pack.value)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [42] * 5
    assert pack == ["put_off_pack"]


def test_one_that_fails_is_run_again_the_next_time(pack: list[str]) -> None:
    with later("put_off_bad"):
        import put_off_bad
    with pytest.raises(ZeroDivisionError):
        _ = put_off_bad.value
    with pytest.raises(AttributeError, match="value"):
        _ = put_off_bad.value
    assert put_off_bad.first == 1
    assert pack == ["put_off_bad"] * 2


def test_the_app_is_built_without_them(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", APP]
    environment = {**os.environ, "PROMPTCLF_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "_Unread _Unread\n"
