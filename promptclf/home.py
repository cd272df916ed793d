"""promptclf's own folder: where it lies, and what is kept there of what takes time to find out."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import platformdirs

logger = logging.getLogger(__name__)


def home() -> Path:
    """Where promptclf keeps its files: ``PROMPTCLF_HOME``, or the user's cache folder."""
    return Path(os.environ.get("PROMPTCLF_HOME") or platformdirs.user_cache_dir("promptclf"))


def remembered(
    kind: str, key: Mapping[str, Any], find: Callable[[], str], valid: Callable[[str], bool]
) -> str:
    """What `find` returned when it was called before, in this process or another, with an equal key.

    Parameters
    ----------
    kind
        What is found, as a part of a file's name.
    key
        All that the result depends on, as JSON values.
    find
        Finds it out.
    valid
        Tells whether what was kept is such a result: a file may be damaged.
    """
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()
    file = home() / "known" / f"{kind}-{digest[:32]}.json"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))["value"]
        if isinstance(kept, str) and valid(kept):
            return kept
    except (OSError, ValueError, KeyError, TypeError):
        pass
    value = find()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=file.parent, delete=False) as stage:
            json.dump({"key": dict(key), "value": value}, stage, indent=1)
        Path(stage.name).replace(file)
    except OSError as error:  # then it is found out again the next time
        logger.debug("%s is not kept: %s", kind, error)
    return value


def stamp(files: Iterable[Path]) -> list[list[Any]]:
    """What changes when a file is written anew; a time of modification alone can be set back."""
    found = []
    for file in files:
        known = file.stat()
        found.append([str(file.resolve()), known.st_size, known.st_mtime_ns, known.st_ctime_ns, known.st_ino])
    return found


def is_sha256(text: str) -> bool:
    """Whether this is a SHA-256 in hexadecimal digits."""
    return len(text) == 64 and all(digit in "0123456789abcdef" for digit in text)
