"""Python looks for garbage less often in promptclf's own processes, and as before where it is a library."""

from __future__ import annotations

import subprocess
import sys

from promptclf.garbage import OBJECTS


def thresholds(imports: str) -> list[int]:
    program = f"import gc; {imports}; print(*gc.get_threshold())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_a_command_looks_less_often_and_the_library_as_before() -> None:
    first, *others = thresholds("pass")
    assert first < OBJECTS
    assert thresholds("import promptclf.cli, promptclf.classifiers.base") == [first, *others]
    assert thresholds("from promptclf.cli.frame import prepare_process; prepare_process()") == [
        OBJECTS,
        *others,
    ]
