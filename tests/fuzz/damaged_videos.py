"""Damages 50 small videos and reads them with PyAV and with OpenCV: `damaged_videos.py FOLDER`.

Prints how many are named, and of the others whether frames are missing or changed. A video that is
shorter than the sound one without a word is the worst fault.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from rtdetr_cli.core.image import Pixels
from rtdetr_cli.media import video

FRAMES, SIZE_WH = 40, (160, 120)
CODECS = {"mp4": "libx264", "mov": "mpeg4", "avi": "mjpeg", "mkv": "libx264", "webm": "libvpx"}
DAMAGES = ("cut", "exchanged", "zeroed", "removed", "repeated")
CASES = 50


def write(path: Path) -> None:
    """A disc that moves over moving noise."""
    noise = np.random.default_rng(0).integers(0, 255, (15, 20, 3), np.uint8)
    background = np.asarray(cv2.resize(noise, SIZE_WH), np.uint8)
    file: Any = av.open(str(path), "w")
    stream = file.add_stream(CODECS[path.suffix[1:]], rate=25)
    stream.width, stream.height = SIZE_WH
    stream.pix_fmt = "yuvj420p" if path.suffix == ".avi" else "yuv420p"
    for number in range(FRAMES):
        image = np.roll(background, 3 * number, axis=1)
        cv2.circle(image, (10 + 3 * number, 60), 12, (255, 255, 255), -1)
        file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
    file.mux(stream.encode(None))
    file.close()


def damaged(whole: bytes, kind: str, rng: random.Random) -> bytes:
    """The content of a file with one damage; bytes are exchanged at up to 50 places."""
    content = bytearray(whole)
    size, at = len(content), rng.randrange(len(content) // 10, len(content) * 9 // 10)
    length = rng.randrange(1, size // 20)
    if kind == "cut":
        del content[at:]
    elif kind == "exchanged":
        for _ in range(rng.choice((1, 5, 50))):
            content[rng.randrange(size)] = rng.randrange(256)
    elif kind == "zeroed":
        content[at : at + length] = bytes(length)
    elif kind == "removed":
        del content[at : at + length]
    else:
        content[at:at] = content[at : at + length]
    return bytes(content)


def plant(folder: Path) -> list[Path]:
    """Write the 50 damaged files; five sound ones, `sound.mp4`..., are in a folder beside them."""
    sound = folder.with_name(f"{folder.name}-sound")
    for each in (folder, sound):
        each.mkdir(parents=True)
    for suffix in CODECS:
        write(sound / f"sound.{suffix}")
    paths = []
    for number in range(CASES):
        suffix, kind = [*CODECS][number % 5], DAMAGES[number // 5 % 5]
        paths.append(folder / f"{number:02d}-{kind}.{suffix}")
        whole = (sound / f"sound.{suffix}").read_bytes()
        paths[-1].write_bytes(damaged(whole, kind, random.Random(number)))
    return paths


def outcome(path: Path, expected: list[Pixels]) -> str:
    """`named`, or what the frames of a file that is not named are like."""
    found = list(video.read_video(path))
    frames = [one.image for one in found if one.image is not None]
    if any(one.error for one in found):
        return "named"
    if len(frames) != len(expected):
        last_s = found[-1].time_s or 0.0
        return "a hole, the last time is right" if last_s > FRAMES / 25 - 0.1 else "SHORTER"
    differences = (np.abs(a.astype(int) - b).mean() for a, b in zip(frames, expected, strict=True))
    return "changed pixels" if max(differences) > 1 else "as the sound file"


def main() -> None:
    """Print a line a reader and a line a file that is not named."""
    folder = Path(sys.argv[1])
    paths = plant(folder)
    video.quiet_opencv()
    for reader in ("av", "opencv"):
        setattr(video, "find_spec", {"av": reader == "av" or None}.get)  # noqa: B010  (for mypy)
        sound = {}
        for path in folder.with_name(f"{folder.name}-sound").iterdir():
            frames = [one.image for one in video.read_video(path)]
            sound[path.suffix] = [image for image in frames if image is not None]
            assert len(sound[path.suffix]) == len(frames) == FRAMES
        outcomes = {path.name: outcome(path, sound[path.suffix]) for path in paths}
        named = sum(one == "named" for one in outcomes.values())
        sys.stdout.write(f"{reader}: {named} of {len(paths)} named\n")
        for name, one in outcomes.items():
            sys.stdout.write(f"  {name}: {one}\n" if one != "named" else "")


if __name__ == "__main__":
    main()
