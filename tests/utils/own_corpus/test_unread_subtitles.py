"""Subtitles inside video files and beside them are told of, with what to do."""

from pathlib import Path

import av
import pytest

from tests.support.video_files import real_video, write_video
from utils.own_corpus.unread_subtitles import files_beside, notes_on_tracks

SRT = "1\n00:00:00,100 --> 00:00:01,000\nHello.\n"


def with_track(path: Path) -> Path:
    """A video with a track of subtitles."""
    srt = path.with_suffix(".srt")
    srt.write_text(SRT)
    with av.open(str(real_video("bikes"))) as video, av.open(str(srt)) as subtitles, av.open(str(path), "w") as out:
        inputs = ((video, video.streams.video[0]), (subtitles, subtitles.streams.subtitles[0]))
        written = [out.add_stream_from_template(stream) for _, stream in inputs]  # all before the first packet
        for (container, stream), target in zip(inputs, written, strict=True):
            for packet in container.demux(stream):
                if packet.size:
                    packet.stream = target
                    out.mux(packet)
    srt.unlink()
    return path


@pytest.fixture
def videos(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    write_video(tmp_path / "plain.mp4", 5)
    with_track(tmp_path / "two words.mkv")
    return {path.stem: path for path in sorted(tmp_path.iterdir())}


def test_a_track_is_told_with_the_command_that_takes_it_out(videos: dict[str, Path], tmp_path: Path):
    (note,) = notes_on_tracks(videos, tmp_path / "subs")
    assert "silent, though the file holds a subtitle track, which is not read: two words: " in note
    assert note.endswith(f"ffmpeg -i '{tmp_path}/two words.mkv' -map 0:s:0 '{tmp_path}/subs/two words.srt'")


def test_nothing_is_told_of_videos_without_one(videos: dict[str, Path]):
    del videos["two words"]
    assert notes_on_tracks(videos, None) == []
    assert files_beside(videos.values()) == []


def test_files_beside_the_videos_are_named(videos: dict[str, Path], tmp_path: Path):
    for name in ("plain.SRT", "two words.en.vtt", "plain.json", "._plain.srt"):
        (tmp_path / name).write_text(SRT)
    assert sorted(files_beside(videos.values())) == ["plain.SRT", "two words.en.vtt"]
