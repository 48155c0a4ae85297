"""Show images on the screen: windows of OpenCV for a run, the system's viewer for one image."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib import import_module

from PIL import Image

from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.image import Pixels
from rtdetr_cli.core.opencv import cv2

_LARGEST_WH = (1280, 720)
"""A larger image is shown smaller at first; the user can resize the window."""
_ENDS = {ord("q"), ord("Q"), 27}
"""Keys that end a run: q and Esc."""
_PLAIN = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
"""Windows that can be resized, without a toolbar."""
_POLL_MS = 20


def require_windows() -> None:
    """Check that OpenCV can open windows; it ends the process if there is no screen.

    Raises:
        BackendError: it is built without windows, or there is no screen.
    """
    if not cv2.currentUIFramework():
        raise BackendError(
            "show needs an OpenCV with windows, and this is opencv-python-headless: pip uninstall "
            "-y opencv-python-headless; pip install --force-reinstall --no-deps opencv-python"
        )
    if sys.platform.startswith("linux"):
        _require_screen()
        attempt = [sys.executable, "-c", "import cv2; cv2.namedWindow('rtdetr')"]
        try:
            failed = subprocess.run(
                attempt, capture_output=True, timeout=30, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            failed = 1
        if failed:
            raise BackendError(
                f"show needs a screen, and {_named_screen()} cannot be opened; without show, "
                "images are written with save=true"
            )


class Windows:
    """Windows of a run, one per title. For the main thread only, as most systems require.

    Attributes:
        is_ended: whether the user has pressed q or Esc, or closed a window.
    """

    def __init__(self) -> None:
        self.is_ended = False
        self._due_s: dict[str, float] = {}
        os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")  # fonts that wheels lack

    def show(self, title: str, image_bgr: Pixels, seconds: float | None) -> None:
        """Show (H, W, 3) uint8 in the window of this title.

        Args:
            title: of the window.
            image_bgr: pixels.
            seconds: from the previous image of the window to this one, which is shown at once if
                they are over; None: wait for a key after it is shown.
        """
        if self.is_ended:
            return
        if title not in self._due_s:
            self._open(title, image_bgr)
        due_s = self._due_s[title] + (seconds or 0)
        if seconds:
            self._wait(title, due_s)
        cv2.imshow(title, image_bgr)
        self._due_s[title] = max(due_s, time.monotonic())
        self._wait(title, None if seconds is None else 0)

    def close(self) -> None:
        """Close all windows."""
        while self._due_s:
            title, _ = self._due_s.popitem()
            if _is_open(title):
                cv2.destroyWindow(title)
        cv2.waitKey(1)  # closing takes effect while events are handled

    def _open(self, title: str, image_bgr: Pixels) -> None:
        height, width = image_bgr.shape[:2]
        scale = min(1, _LARGEST_WH[0] / width, _LARGEST_WH[1] / height)
        cv2.namedWindow(title, _PLAIN)
        cv2.resizeWindow(title, max(1, round(width * scale)), max(1, round(height * scale)))
        self._due_s[title] = time.monotonic()

    def _wait(self, title: str, until_s: float | None) -> None:
        """Handle keys and the window until a time, at least once; None: until a key."""
        while not self.is_ended:
            left_ms = _POLL_MS if until_s is None else (until_s - time.monotonic()) * 1000
            key = cv2.waitKey(max(1, min(_POLL_MS, int(left_ms))))
            self.is_ended = key in _ENDS or not _is_open(title)
            if key >= 0 if until_s is None else left_ms <= _POLL_MS:
                return


def show_image(image: Image.Image, title: str) -> None:
    """Show one image in the notebook, or in the system's viewer, without waiting.

    Raises:
        BackendError: there is no screen, or no program that opens images.
    """
    if _in_notebook():
        import_module("IPython.display").display(image)
        return
    if sys.platform.startswith("linux"):
        _require_screen()
    from PIL import ImageShow  # imports IPython, where it is installed

    if not ImageShow.show(image, title=title):
        raise BackendError("show() found no program that opens images, such as xdg-open or eog")


def _require_screen() -> None:
    if not any(os.environ.get(key) for key in ("DISPLAY", "WAYLAND_DISPLAY")):
        raise BackendError(
            "show needs a screen, and there is none (DISPLAY is not set); without show, images "
            "are written with save=true"
        )


def _named_screen() -> str:
    keys = ("DISPLAY", "WAYLAND_DISPLAY")
    return next(f"{key}={os.environ[key]}" for key in keys if os.environ.get(key))


def _is_open(title: str) -> bool:
    try:
        return bool(cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) > 0)
    except cv2.error:  # GTK raises for a window that is closed
        return False


def _in_notebook() -> bool:
    """Whether this is the kernel of a notebook, which has imported IPython."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and hasattr(shell, "kernel")
