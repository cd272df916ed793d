"""`promptclf.lm.served` with a made-up model: test_remote.py has it started in place of the real one.

The file `revision` of its folder says which weights it has, an adapter's file what it adds to scores; a
folder with a file `endless` is never loaded.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fakes import FakeModel
from promptclf.errors import ModelError
from promptclf.lm import loading, served


class MadeUp(FakeModel):
    """As `FakeModel`, with adapters."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.info = replace(self.info, revision=(folder / "revision").read_text())
        self.spec = {"name": str(folder), "quantization": "none"}
        self.added: dict[str | None, float] = {None: 0.0}

    def attach(self, config: Any, weights: Path) -> str:
        """Returns a name."""
        name = f"adapter {len(self.added)}"
        self.added[name] = float(weights.read_text())
        return name

    def score(self, *arguments: Any, adapter: str | None = None, **options: Any) -> Any:
        """As `FakeModel.score`, and what the adapter adds."""
        return super().score(*arguments, **options) + self.added[adapter]


def load_model(name: str, **_: Any) -> MadeUp:
    """In place of `promptclf.load_model`."""
    folder = Path(name)
    logging.getLogger("promptclf.lm.loading").info("loading %s", folder.name)
    if not folder.is_dir():
        raise ModelError(f"{folder.name}: there is no such folder")
    while (folder / "endless").exists():
        time.sleep(0.1)
    return MadeUp(folder)


if __name__ == "__main__":
    loading.load_model = load_model  # type: ignore[assignment]
    served.main(Connection(int(sys.argv[1])))
