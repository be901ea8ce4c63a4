"""Versions of what a run's numbers depend on."""

import platform
from importlib.metadata import version

import esper_lightning

_PACKAGES = ("torch", "lightning", "numpy", "msgspec")


def versions() -> dict[str, str]:
    """Of Python, of this package and of the packages that compute."""
    return {
        "python": platform.python_version(),
        "esper_lightning": esper_lightning.__version__,
        **{package: version(package) for package in _PACKAGES},
    }
