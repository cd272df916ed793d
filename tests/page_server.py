"""The whole app on a server with a fake model; ``python page_server.py FOLDER PORT SECONDS`` runs it.

SECONDS is how long it waits for answers when it is told to end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from live import START_SECONDS, Live, MoodyModel, first_line, free_port
from promptclf.jobs.store import Store


@contextmanager
def page(folder: Path, *, seconds: float = 10) -> Iterator[tuple[Live, subprocess.Popen[str]]]:
    """Serve the app until the block ends, which may have ended it already."""
    port = free_port()
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1]), "GRADIO_TEMP_DIR": str(folder / "files")}
    environment |= {"PROMPTCLF_HOME": str(folder / "home")}
    command = [sys.executable, __file__, str(folder), str(port), str(seconds)]
    with (
        (folder / "log").open("w+") as log,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        store = Store(folder / "store")
        try:
            line = first_line(server, START_SECONDS)
            assert line == f"promptclf is running on http://127.0.0.1:{port}", (folder / "log").read_text()
            yield Live(f"http://127.0.0.1:{port}", store), server
        finally:
            store.close()
            if server.poll() is None:
                server.kill()


def main(folder: Path, port: int, seconds: float) -> None:
    """Serve until the process is told to end."""
    from promptclf.jobs.jobs import Jobs
    from promptclf.ui import build_app, server
    from promptclf.ui.core.service import Service

    server.DRAIN_SECONDS = seconds
    store = Store(folder / "store")
    service = Service(MoodyModel(store.folder / "held"), store=store)
    server.run(build_app(service, Jobs(store)), server_name="127.0.0.1", server_port=port)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
