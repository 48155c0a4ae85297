"""A written clip has the frames, the size, the rate and the length of its source, and its sound."""

from pathlib import Path

import numpy as np
import pytest

from rtdetr_cli.core.errors import BackendError, StorageError
from rtdetr_cli.media import video_writer
from rtdetr_cli.media.item import Clip
from rtdetr_cli.media.video import read_video
from rtdetr_cli.media.video_writer import VideoWriter


@pytest.fixture(params=["opencv", "av"])
def encoder(request, monkeypatch):
    """Runs a test with each encoder."""
    if request.param == "av":
        pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")
    monkeypatch.setattr(video_writer, "find_spec", lambda name: request.param == "av" or None)
    return request.param


def write(path, times, fps=20.0, size_hw=(48, 64), source="absent.mp4"):
    writer = VideoWriter(path, Clip(source, fps))
    for number, time_s in enumerate(times):
        writer.write(np.full((*size_hw, 3), 20 * number + 10, np.uint8), time_s)
    assert not path.exists()
    writer.close()
    return path


def test_frames_and_rate_are_kept(tmp_path, encoder):
    found = list(read_video(write(tmp_path / "new" / "a.mp4", np.arange(10) / 20)))
    assert [one.frame for one in found] == list(range(1, 11))
    assert found[0].clip.fps == pytest.approx(20)
    np.testing.assert_allclose([one.time_s for one in found], np.arange(10) / 20, atol=2e-3)
    for number, one in enumerate(found):
        assert one.image.mean() == pytest.approx(20 * number + 10, abs=8)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.mp4"]


def test_odd_sides_get_a_pixel_and_other_sizes_are_stretched(tmp_path, encoder):
    writer = VideoWriter(tmp_path / "a.mp4", Clip("absent.mp4", 10.0))
    for number, size_hw in enumerate([(31, 65), (31, 65), (60, 80)]):
        writer.write(np.full((*size_hw, 3), 200, np.uint8), number / 10)
    writer.close()
    assert [one.image.shape for one in read_video(tmp_path / "a.mp4")] == [(32, 66, 3)] * 3


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [
        ((16, 16380), (8, 8190)),  # a side of half as many pixels
        ((6, 65535), (2, 8190)),
        ((8200, 8), (8190, 6)),
        ((1, 1), (2, 2)),
    ],
)
def test_frames_that_no_encoder_takes_are_scaled_and_named(
    tmp_path, encoder, capsys, size_hw, expected
):
    path = write(tmp_path / "a.mp4", [0, 0.1], 10, size_hw)
    assert [one.image.shape[:2] for one in read_video(path)] == [expected] * 2
    errors = capsys.readouterr().err
    is_large = max(size_hw) > 8190
    assert errors.count("absent.mp4: videos hold frames up to 8190x4320; those of") == is_large


def test_the_area_of_a_frame_is_limited_too():
    frame = np.broadcast_to(np.uint8(0), (8000, 8000, 3))
    width, height = VideoWriter(Path("a.mp4"), Clip("a.gif", 10.0))._fitting(frame)
    assert (width, height) == (5948, 5948)  # the root of 8190 * 4320 is 5948.2


@pytest.mark.parametrize("fps", [1e-5, 0.05, 1000, 1e9])
def test_any_rate_that_a_header_may_have_is_written(tmp_path, encoder, fps):
    found = list(
        read_video(write(tmp_path / "a.mp4", np.arange(3) / min(max(fps, 0.01), 500), fps))
    )
    assert [one.error for one in found] == ["", "", ""]


def test_mpeg4_is_written_where_h264_is_missing(tmp_path, monkeypatch):
    pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")
    monkeypatch.setattr(video_writer, "_CODECS", ("mpeg4",))
    found = list(read_video(write(tmp_path / "a.mp4", [0, 0.05, 0.3])))
    assert [one.time_s for one in found] == pytest.approx([0, 0.05, 0.3])


def test_a_stream_lasts_as_long_as_it_was_watched(tmp_path, encoder):
    writer = VideoWriter(tmp_path / "a.mp4", Clip("rtsp://a", 20.0, is_live=True))
    for time_s in (0.0, 0.5, 1.0):
        writer.write(np.zeros((48, 64, 3), np.uint8), time_s)
    writer.close()
    assert list(read_video(tmp_path / "a.mp4"))[-1].time_s == pytest.approx(1.0, abs=0.06)


def test_without_a_frame_there_is_no_file(tmp_path, encoder):
    VideoWriter(tmp_path / "a.mp4", Clip("absent.mp4", 10.0)).close()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path, encoder):
    (tmp_path / "file").write_text("")
    writer = VideoWriter(tmp_path / "file" / "a.mp4", Clip("absent.mp4", 10.0))
    with pytest.raises(StorageError, match=r"cannot write .*a\.mp4: a file has the name"):
        writer.write(np.zeros((8, 8, 3), np.uint8), 0.0)


def test_what_is_not_h264_is_said_once(tmp_path, encoder, capsys):
    video_writer._say_mpeg4.cache_clear()
    write(tmp_path / "a.mp4", [0, 0.1])
    write(tmp_path / "b.mp4", [0, 0.1])
    err = capsys.readouterr().err
    assert err.count("MPEG-4 part 2") == (encoder == "opencv")


def test_times_and_sound_of_the_source_are_kept(tmp_path, monkeypatch):
    av = pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")
    source = tmp_path / "source.mp4"
    with av.open(str(source), "w") as file:
        video, sound = file.add_stream("mpeg4", rate=25), file.add_stream("aac", rate=16000)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for _ in range(50):
            image = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            file.mux(video.encode(image))
        file.mux(video.encode(None))
        tone = np.sin(np.arange(32000) / 20).astype(np.float32)[None]
        for start in range(0, 32000, 1000):
            chunk = av.AudioFrame.from_ndarray(tone[:, start : start + 1000], "fltp", "mono")
            chunk.sample_rate, chunk.pts = 16000, start
            file.mux(sound.encode(chunk))
        file.mux(sound.encode(None))
    for name in ("long", "a"):
        times = [0.0, 0.04, 0.44, 0.48, 3.0 if name == "long" else 1.0]
        path = write(tmp_path / f"{name}.mp4", times, source=str(source))
    np.testing.assert_allclose([one.time_s for one in read_video(path)], times, atol=1e-3)
    with av.open(str(path)) as file:
        assert file.streams.video[0].codec_context.name == "h264"
        assert file.streams.audio[0].codec_context.name == "aac"
        length = sum(frame.samples for frame in file.decode(audio=0)) / 16000
    assert length == pytest.approx(times[-1] + 0.05, abs=0.15)  # to the end of the last frame


def test_what_ffmpeg_refuses_to_write_is_one_sentence(tmp_path, monkeypatch):
    pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")
    monkeypatch.setattr(video_writer, "_LARGEST", (20000, 20000))  # x264 takes 16384
    with pytest.raises(BackendError, match=r"a\.mp4: FFmpeg cannot write this video \("):
        write(tmp_path / "a.mp4", [0], size_hw=(16, 17000))
