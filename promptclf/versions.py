"""The versions that go into every result."""

from __future__ import annotations

import platform
from importlib import metadata

from promptclf import __version__


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    packages = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "scikit-learn")
    found = {"promptclf": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found
