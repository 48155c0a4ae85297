"""OpenCV, from opencv-python or opencv-python-headless, whichever is installed."""

from __future__ import annotations

from rtdetr_cli.core.errors import BackendError

HEADLESS = (
    "pip uninstall -y opencv-python; pip install --force-reinstall --no-deps opencv-python-headless"
)
"""Replaces the wheel that needs a desktop's libraries."""

try:
    import cv2
except ModuleNotFoundError as error:
    raise BackendError(
        "OpenCV is missing: pip install opencv-python, or opencv-python-headless on a server"
    ) from error
except ImportError as error:  # libGL.so.1, in most container images
    raise BackendError(f"OpenCV cannot be loaded ({error}); on a server: {HEADLESS}") from error

__all__ = ["cv2"]
