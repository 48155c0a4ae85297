"""Windows follow the keys of the user, and without a screen there is one sentence."""

import sys
import types

import cv2
import numpy as np
import pytest
from PIL import Image

from rtdetr_cli.core import screen
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.screen import Windows, require_windows, show_image

PIXELS = np.zeros((1000, 4000, 3), np.uint8)


class FakeCV2:
    """The part of OpenCV that opens windows; keys come from a list, -1 is none."""

    error, WND_PROP_VISIBLE = cv2.error, cv2.WND_PROP_VISIBLE

    def __init__(self, *keys, framework="QT"):
        self.keys, self.framework = list(keys), framework
        self.sizes, self.shown, self.closed, self.waits = {}, [], set(), 0

    def currentUIFramework(self):  # noqa: N802  (the name of OpenCV)
        return self.framework

    def namedWindow(self, title, flags):  # noqa: N802
        assert flags & cv2.WINDOW_KEEPRATIO == cv2.WINDOW_KEEPRATIO

    def resizeWindow(self, title, width, height):  # noqa: N802
        self.sizes[title] = (width, height)

    def imshow(self, title, image):
        self.shown.append(title)

    def waitKey(self, milliseconds):  # noqa: N802
        assert milliseconds > 0  # 0 would wait forever
        self.waits += 1
        return self.keys.pop(0) if self.keys else -1

    def getWindowProperty(self, title, which):  # noqa: N802
        return 0.0 if title in self.closed else 1.0

    def destroyWindow(self, title):  # noqa: N802
        self.closed.add(title)


@pytest.fixture
def fake(monkeypatch):
    def install(*keys, **options):
        monkeypatch.setattr(screen, "cv2", FakeCV2(*keys, **options))
        return screen.cv2

    return install


def test_an_image_stays_until_a_key(fake):
    window = fake(*[-1] * 6, ord("n"))
    windows = Windows()
    windows.show("a", PIXELS, None)
    assert (window.shown, window.keys) == (["a"], [])
    assert window.sizes == {"a": (1280, 320)}  # a quarter of 4000 pixels would be too wide
    assert not windows.is_ended


@pytest.mark.parametrize("key", [ord("q"), ord("Q"), 27])
def test_q_and_esc_end_the_run(fake, key):
    window = fake(-1, key)
    windows = Windows()
    windows.show("a", PIXELS, None)
    windows.show("a", PIXELS, None)
    assert windows.is_ended
    assert window.shown == ["a"]
    windows.close()
    assert window.closed == {"a"}


def test_closing_a_window_ends_the_run(fake):
    window = fake()
    window.closed.add("a")
    windows = Windows()
    windows.show("a", PIXELS, None)
    assert windows.is_ended


def test_frames_come_at_their_rate_and_late_ones_at_once(fake, monkeypatch):
    """Frames of 0.1 s: 20 ms per poll of the keys; the third frame is ready 0.5 s too late."""
    window = fake()
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    wait = window.waitKey

    def passing(milliseconds):
        clock[0] += milliseconds / 1000
        return wait(milliseconds)

    monkeypatch.setattr(window, "waitKey", passing)
    windows, times = Windows(), []
    for delay in (0, 0, 0.5):
        clock[0] += delay
        windows.show("a", PIXELS, 0.1)
        times.append(clock[0])
    assert times == pytest.approx([0.1, 0.2, 0.7], abs=0.01)
    assert window.waits >= 10


def test_an_opencv_without_windows_is_named(fake):
    fake(framework="")
    with pytest.raises(BackendError, match="opencv-python-headless"):
        require_windows()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have a screen")
def test_without_a_screen_there_is_one_sentence(monkeypatch):
    """OpenCV itself ends the process then, so that a child tries it."""
    if not cv2.currentUIFramework():
        pytest.skip("this OpenCV has no windows")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":4711")
    with pytest.raises(BackendError, match="DISPLAY=:4711 cannot be opened"):
        require_windows()
    monkeypatch.delenv("DISPLAY")
    with pytest.raises(BackendError, match="DISPLAY is not set"):
        require_windows()
    with pytest.raises(BackendError, match="DISPLAY is not set"):
        show_image(Image.new("RGB", (8, 8)), "a")


def test_one_image_opens_in_the_viewer_of_the_system(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("PIL.ImageShow.show", lambda image, title: title == "a")
    show_image(Image.new("RGB", (8, 8)), "a")
    with pytest.raises(BackendError, match="no program that opens images"):
        show_image(Image.new("RGB", (8, 8)), "b")


def test_a_notebook_shows_images_itself(monkeypatch):
    shown = []
    shell = types.SimpleNamespace(kernel=object())
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    display = types.ModuleType("IPython.display")
    display.display = shown.append
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    image = Image.new("RGB", (8, 8))
    show_image(image, "a")
    assert shown == [image]
