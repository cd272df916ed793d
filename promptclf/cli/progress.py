"""Progress of long work: a bar and lines on a terminal, log lines (``-v``) elsewhere."""

from __future__ import annotations

import logging
import sys
from typing import Any

from tqdm import tqdm

logger = logging.getLogger(__name__)

#: Events of training and comparisons -> how they read.
STAGES = {
    "kept": "kept from an earlier run",
    "start": "loading",
    "fit": "fitting on {rows} rows",
    "refit": "training afresh on all {rows} rows, {epochs} epochs",
    "score": "scoring {rows} rows",
    "time": "timing {rows} texts one by one",
    "done": "done",
}


class Progress:
    """Shows the events of `LoraClassifier` and of comparisons; use it as their callback."""

    def __init__(self) -> None:
        self.bar: tqdm[Any] | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event."""
        name = f"{event['name']}: " if "name" in event else ""
        kind = event["event"]
        if kind == "step":
            self._step(name, event)
        elif kind == "epoch":
            self._line(
                f"{name}epoch {event['epoch']} of at most {event['epochs']}:"
                f" macro-F1 {event['macro_f1']:.3f}, accuracy {event['accuracy']:.3f},"
                f" log-loss {event['log_loss']:.3f}"
            )
        elif kind in STAGES:
            self.close()
            self._line(name + STAGES[kind].format_map(event))

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _step(self, name: str, event: dict[str, Any]) -> None:
        if self.bar is None:  # disable=None: only on a terminal
            self.bar = tqdm(
                total=event["steps"],
                desc=f"{name}training",
                unit="step",
                disable=None,
                leave=False,
                file=sys.stderr,
            )
        self.bar.update(event["step"] - self.bar.n)
        self.bar.set_postfix(loss=f"{event['loss']:.3f}")

    def _line(self, text: str) -> None:
        if sys.stderr.isatty():
            tqdm.write(text, file=sys.stderr)
        else:
            logger.info("%s", text)
