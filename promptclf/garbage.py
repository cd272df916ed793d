"""Looking for garbage less often, in processes of promptclf's own."""

from __future__ import annotations

import gc

OBJECTS = 10_000  # that came and did not go, before Python looks for those that only know each other


def collect_rarely() -> None:
    """Let imports pass undisturbed: they make objects that stay, and looking them through takes a sixth."""
    gc.set_threshold(OBJECTS, *gc.get_threshold()[1:])
