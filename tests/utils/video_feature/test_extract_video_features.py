"""From video files to feature files: right rows, honest reports, and nothing lost when stopped."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.video_files import (
    count_bars,
    efficientnet_weights,
    extractor,
    number_of,
    numbered_frame,
    paths_in,
    real_video,
    write_video,
)
from utils.basic_utils import InputError
from utils.feature_files.feature_file import FeatureFile
from utils.feature_files.provenance import DECISIVE, properties
from utils.video_feature import extract_frame_features, extract_i3d_features
from utils.video_feature.convert_feature_frm_to_clip import convert
from utils.video_feature.extract_i3d_features import I3DModel, windows_of
from utils.video_feature.frames import open_video
from utils.video_feature.i3d import I3D
from utils.video_feature.image_models import ImageModel, load_image_model
from utils.video_feature.pipeline import Looking, extract_each
from utils.video_feature.sampling import Resize, centre_crop

TIMM = "timm/tf_efficientnet_lite0"
BROKEN = ("cut", "empty", "noise")


@pytest.fixture(scope="module")
def model() -> ImageModel:
    return load_image_model(TIMM, efficientnet_weights())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos that work, and three that do not."""
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(real_video("carphone_pristine"), folder / "phone.mp4")
    write_video(folder / "bars.mkv", 40, 25)
    whole = write_video(folder / "cut.mp4", 250, 25, options={"movflags": "faststart"}).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").touch()
    (folder / "noise.avi").write_bytes(np.random.default_rng(0).bytes(5000))
    return folder


def plain_features(path: Path, model: ImageModel, frame_rate: float) -> np.ndarray:
    """One frame after the other."""
    frames = open_video(path).frames(frame_rate, model.preparation.resize)
    return np.concatenate([model(centre_crop(frame, model.preparation.crop)[None]) for _, frame in frames])


def test_each_row_is_the_feature_of_its_frame_and_failures_are_reported(
    folder: Path, model: ImageModel, tmp_path: Path
) -> None:
    report = extract_frame_features.extract(paths_in(folder), model, tmp_path / "f.h5", Looking(3.0, 5))
    assert report.done == ["bars", "phone"]
    assert report.durations == {"bars": pytest.approx(1.6), "phone": pytest.approx(4.004)}
    assert set(report.failed) == set(BROKEN)
    for name, reason in report.failed.items():
        assert str(paths_in(folder)[name]) in reason
    file = FeatureFile(tmp_path / "f.h5")
    assert file.keys() == ["bars", "phone"]
    for name, n_rows in (("bars", 5), ("phone", 12)):
        rows = file.read(name)
        assert rows.shape == (n_rows, 1280)
        np.testing.assert_allclose(rows, plain_features(paths_in(folder)[name], model, 3.0), atol=1e-4)


def test_the_file_says_what_made_it(folder: Path, model: ImageModel, tmp_path: Path) -> None:
    extract_frame_features.extract({"phone": folder / "phone.mp4"}, model, tmp_path / "f.h5", Looking(2, 32))
    made_by = FeatureFile(tmp_path / "f.h5").made_by()
    assert properties(made_by) == {
        "model": TIMM,
        "weights": model.weights,
        "layer": "pool5",
        "frame_rate": 2.0,
        "normalised": "none",
        "value_range": "[-1,1]",
    }
    assert made_by["kind"] == "video"
    assert made_by["made_by"] == "utils/video_feature/extract_frame_features.py"
    assert "torch " in made_by["versions"]
    assert "av " in made_by["versions"]


def test_frame_features_become_clips(folder: Path, model: ImageModel, tmp_path: Path) -> None:
    extract_frame_features.extract({"phone": folder / "phone.mp4"}, model, tmp_path / "f.h5")
    convert([tmp_path / "f.h5"], tmp_path / "c.h5", pool="max", clip_length=1.5)
    frames, clips = FeatureFile(tmp_path / "f.h5").read("phone"), FeatureFile(tmp_path / "c.h5").read("phone")
    assert len(clips) == 3
    bounds = [(0, 5), (5, 9), (9, 12)]  # 0.1 to 1.43 s, 1.77 to 2.77 s, 3.1 to 3.77 s
    np.testing.assert_array_equal(clips, [frames[start:end].max(0) for start, end in bounds])


def test_folders_of_frames_give_the_same_rows_as_their_video(model: ImageModel, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 40, 25)
    (tmp_path / "a").mkdir()
    for number, (_, frame) in enumerate(open_video(video).frames(3.0)):
        Image.fromarray(frame).save(tmp_path / "a" / f"{number + 1}.png")
    report = extract_frame_features.extract({"file": video, "folder": tmp_path / "a"}, model, tmp_path / "f.h5")
    assert report.durations == {"file": pytest.approx(1.6), "folder": pytest.approx(5 / 3)}
    one, other = (FeatureFile(tmp_path / "f.h5").read(name) for name in ("file", "folder"))
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert cosine.min() > 0.98


CHILD = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from tests.support import video_files
from utils.feature_files import item_log
append, n_done = item_log.ItemLog.append, 0
def append_and_die(*args):
    global n_done
    append(*args)
    n_done += 1
    if n_done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
item_log.ItemLog.append = append_and_die
video_files.count_bars(Path({folder!r}), Path({out!r}))
"""


def test_a_killed_extraction_goes_on_and_gives_the_same_file(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(5):
        write_video(folder / f"{number}.mp4", 25 * (number + 1), 25)
    assert count_bars(folder, tmp_path / "whole.h5") == [3, 6, 9, 12, 15]
    script = CHILD.format(path=sys.path, folder=str(folder), out=str(tmp_path / "f.h5"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "f.h5").exists()
    assert count_bars(folder, tmp_path / "f.h5") == [9, 12, 15]
    with h5py.File(tmp_path / "f.h5") as one, h5py.File(tmp_path / "whole.h5") as other:
        assert list(one) == list(other) == ["0", "1", "2", "3", "4"]
        for name in one:
            np.testing.assert_array_equal(one[name][()], other[name][()])
        assert dict(one.attrs) == dict(other.attrs)


def test_failed_videos_are_tried_again_and_others_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    write_video(folder / "a.mp4")
    (folder / "b.mp4").touch()
    assert count_bars(folder, tmp_path / "f.h5") == [6]
    write_video(folder / "b.mp4", 25)
    assert count_bars(folder, tmp_path / "f.h5") == [3]
    assert FeatureFile(tmp_path / "f.h5").keys() == ["a", "b"]
    assert count_bars(folder, tmp_path / "f.h5") == []


def test_a_video_without_a_decoder_does_not_end_the_extraction(tmp_path: Path) -> None:
    coded = write_video(tmp_path / "a.avi", 10).read_bytes()
    (tmp_path / "a.avi").write_bytes(coded.replace(b"H264", b"ZZZZ"))
    videos = {"a": tmp_path / "a.avi", "b": write_video(tmp_path / "b.mp4", 25)}
    zeros = extractor(lambda _: np.zeros((1, 2), np.float32))
    report = extract_each(videos, zeros, Looking(3.0, 1, decode_threads=1), tmp_path / "f.h5")
    assert report.failed == {"a": f"{videos['a']}: there is no decoder for its codec: convert it"}
    assert report.done == FeatureFile(tmp_path / "f.h5").keys() == ["b"]


def test_features_that_are_not_finite_are_a_failure(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4")
    nothing = extractor(lambda batch: np.full((len(batch), 2), np.nan, np.float32))
    report = extract_each({"a": video}, nothing, Looking(3.0, 1000), tmp_path / "f.h5")
    assert "not finite" in report.failed["a"]
    assert report.done == []
    assert not (tmp_path / "f.h5").exists()


def test_an_error_of_the_model_is_no_failure_of_a_video(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")

    def run() -> None:
        failing = extractor(lambda _: 1 / 0)  # type: ignore
        extract_each({"a": tmp_path / "a.mp4"}, failing, Looking(3.0, 1), tmp_path / "f.h5")

    with pytest.raises(ZeroDivisionError):
        run()


def frame_command(*options: str | Path) -> None:
    weights = ["--model", TIMM, "--weights", str(efficientnet_weights()), "--device", "-1"]
    extract_frame_features.main([*map(str, options), *weights])


def test_the_command_lists_what_failed_and_succeeds(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame_command("--videos", folder, "--out", tmp_path / "f.h5", "--durations", tmp_path / "d.json")
    said = capsys.readouterr()
    assert f"{tmp_path / 'f.h5'}: 2 videos" in said.out
    assert "not in it, 3: cut, empty, noise" in said.out
    assert said.err.count("skipped: ") == 3
    assert json.loads((tmp_path / "d.json").read_text()) == {"bars": pytest.approx(1.6), "phone": pytest.approx(4.004)}


def test_the_command_fails_when_nothing_worked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    with pytest.raises(SystemExit) as stopped:
        frame_command("--videos", tmp_path / "videos", "--out", tmp_path / "f.h5")
    assert stopped.value.code == 2
    assert "none of 1 videos could be read" in capsys.readouterr().err
    assert not (tmp_path / "f.h5").exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--frame_rate", "0"), "--frame_rate 0"),
        (("--frame_rate", "nan"), "--frame_rate nan"),
        (("--folder_rate", "-1"), "--folder_rate -1"),
        (("--batch_size", "0"), "--batch_size 0"),
        (("--decode_threads", "-2"), "--decode_threads -2"),
        (("--videos", "nowhere"), "nowhere: cannot be read"),
    ],
)
def test_options_without_meaning_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], why: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        frame_command("--videos", folder, "--out", tmp_path / "f.h5", *options)
    assert stopped.value.code == 2
    assert why in capsys.readouterr().err


def numbers_in(windows: np.ndarray) -> list[int]:
    return [number_of(frame) for frame in windows]


@pytest.mark.parametrize(
    ("n_frames", "windows"),
    [
        (45, [range(23), range(22, 45)]),
        (50, [range(23), range(22, 45), [*range(45, 50)] + [49] * 18, [49] * 23]),
        (1, [[0] * 23, [0] * 23]),
        (30, [range(23), [*range(22, 30)] + [29] * 15]),
    ],
)
def test_two_windows_are_taken_of_each_three_seconds(n_frames: int, windows: list) -> None:
    found = list(windows_of((numbered_frame(number) for number in range(n_frames)), 45))
    assert [numbers_in(window) for window in found] == [list(window) for window in windows]


def test_blocks_of_an_even_number_are_halved() -> None:
    found = list(windows_of((numbered_frame(number) for number in range(8)), 4))
    assert [numbers_in(window) for window in found] == [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.fixture(scope="module")
def i3d_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "i3d.pt"
    torch.save(I3D().state_dict(), path)
    return path


def test_i3d_features_are_those_of_the_windows(
    i3d_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract_i3d_features, "SIDE", 48)  # 224 takes seconds
    (tmp_path / "videos").mkdir()
    video = write_video(tmp_path / "videos" / "a.mp4", 50, 25)  # 2 s: 30 frames at 15 a second
    command = ["--videos", tmp_path / "videos", "--out", tmp_path / "i3d.h5", "--weights", i3d_weights]
    extract_i3d_features.main([*map(str, command), "--device", "-1", "--value_range", "[-1,1]"])
    assert "1 videos" in capsys.readouterr().out
    file = FeatureFile(tmp_path / "i3d.h5")
    rows = file.read("a")
    frames = [centre_crop(frame, 48) for _, frame in open_video(video).frames(15.0, Resize(48))]
    net = I3D().eval()
    net.load_state_dict(torch.load(i3d_weights, weights_only=True))
    second = np.stack([*frames[22:30], *[frames[29]] * 15])
    with torch.no_grad():
        pixels = torch.from_numpy(second).permute(3, 0, 1, 2)[None] / 127.5 - 1
        plain = net(pixels).numpy()[0]
    assert rows.shape == (2, 1024)
    np.testing.assert_allclose(rows[1], plain, atol=1e-4 * np.abs(plain).max())
    found = properties(file.made_by())
    assert found == {
        "model": "i3d",
        "weights": found["weights"],
        "layer": "avg_pool",
        "frame_rate": 15.0,
        "clip_length": 1.5,
        "pooling": "avg",
        "normalised": "none",
        "value_range": "[-1,1]",
    }
    assert set(found) <= set(DECISIVE)


def test_values_are_in_the_range_asked_for(i3d_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, seen = I3D(), []

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels)
        return torch.zeros(len(pixels), 1024)

    monkeypatch.setattr(net, "forward", forward)
    window = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 1, 3)
    for value_range, expected in (("[0,1]", [0, 0.2, 1]), ("[-1,1]", [-1, -0.6, 1])):
        I3DModel(net, torch.device("cpu"), value_range)(window)
        assert seen[-1].flatten().tolist() == pytest.approx(expected)
        assert seen[-1].shape == (1, 3, 1, 1, 1)
    with pytest.raises(InputError, match="--value_range"):
        I3DModel(net, torch.device("cpu"), "[0,255]")


@pytest.mark.parametrize("clip_length", [0, -1, 0.01])
def test_clips_without_frames_are_refused(tmp_path: Path, clip_length: float) -> None:
    with pytest.raises(InputError, match="clips have no frame in them"):
        extract_i3d_features.extract({}, None, tmp_path / "a.h5", clip_length=clip_length)  # type: ignore[arg-type]
