"""The image towers of CLIP, SigLIP and SigLIP 2 give what transformers and its processors give for the same frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

from tests.support.joint_models import KINDS, MOST_PATCHES, PATCH, PROJECTED, SIDE, tiny_joint_model
from tests.support.video_files import real_video
from utils.basic_utils import InputError
from utils.feature_files.feature_file import FeatureFile
from utils.pretrained.joint_model import load_joint_model
from utils.video_feature.extract_frame_features import extract
from utils.video_feature.frames import open_video
from utils.video_feature.image_models import ImageModel, load_image_model
from utils.video_feature.pipeline import Looking
from utils.video_feature.sampling import PatchResize

# (H, W) that no processor has to resize
AS_THEY_ARE = {"clip": (SIDE, 47), "siglip": (SIDE, SIDE), "siglip2": (3 * PATCH, 5 * PATCH)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: tiny_joint_model(tmp_path_factory.mktemp("joint") / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def image_models(folders: dict[str, Path]) -> dict[str, ImageModel]:
    return {kind: load_image_model(f"hf/{folder}") for kind, folder in folders.items()}


def theirs(folder: Path, frames: np.ndarray) -> np.ndarray:
    """(n, D) of frames (n, H, W, 3) uint8 of any size, by transformers alone."""
    pixels = AutoImageProcessor.from_pretrained(folder)(images=list(frames), return_tensors="pt")
    with torch.no_grad():
        found = AutoModel.from_pretrained(folder).eval().get_image_features(**pixels)
    return getattr(found, "pooler_output", found).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_the_right_size_give_what_transformers_gives(folders, image_models, kind: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, *AS_THEY_ARE[kind], 3), np.uint8)
    model = image_models[kind]
    height, width = AS_THEY_ARE[kind]
    assert model.preparation.resize.size(width, height) == (width, height)
    found = model(np.stack([model.preparation.cut(frame) for frame in frames]))
    assert (found.shape, found.dtype) == ((3, PROJECTED[kind]), np.float32)
    np.testing.assert_allclose(found, theirs(folders[kind], frames), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_videos_give_nearly_what_their_stored_frames_give(folders, image_models, tmp_path: Path, kind: str) -> None:
    report = extract({"bikes": real_video("bikes")}, image_models[kind], tmp_path / "a.h5", Looking(1.0, 4))
    assert report.done == ["bikes"]
    stored = [frame for _, frame in open_video(real_video("bikes"), decode_threads=1).frames(1.0)]
    expected = theirs(folders[kind], np.stack(stored))
    with FeatureFile(tmp_path / "a.h5") as file:
        found, record = file.read("bikes"), file.made_by()
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.99  # another scaler
    assert (record["model"], record["weights"]) == (kind, load_joint_model(str(folders[kind])).digest)
    assert (record["layer"], record["precision"]) == ("projected", "float32")


@pytest.mark.skipif("siglip2" not in KINDS, reason="this transformers has no SigLIP 2")
def test_frames_of_several_shapes_in_one_video_are_not_mixed(image_models, tmp_path: Path) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (4, 40, 40, 3), np.uint8)
    folder = tmp_path / "videos" / "shapes"
    folder.mkdir(parents=True)
    for number, (frame, width) in enumerate(zip(frames, (40, 24, 24, 40), strict=True), start=1):
        Image.fromarray(frame[:, :width]).save(folder / f"{number}.png")
    extract({"shapes": folder}, image_models["siglip2"], tmp_path / "a.h5", Looking(1.0, 4))
    with FeatureFile(tmp_path / "a.h5") as file:
        rows = file.read("shapes")
    for row, frame, width in zip(rows, frames, (40, 24, 24, 40), strict=True):
        image = Image.fromarray(frame[:, :width])
        (folder.parent / "one").mkdir(exist_ok=True)
        image.save(folder.parent / "one" / "1.png")
        extract({"one": folder.parent / "one"}, image_models["siglip2"], tmp_path / f"{width}.h5", Looking(1.0, 1))
        with FeatureFile(tmp_path / f"{width}.h5") as file:
            np.testing.assert_allclose(file.read("one")[0], row, atol=1e-5)


@pytest.mark.parametrize(("width", "height"), [(640, 272), (272, 640), (32, 32), (1920, 1080), (31, 5000), (7, 7)])
@pytest.mark.parametrize(("patch", "most"), [(16, 256), (PATCH, MOST_PATCHES), (14, 729)])
def test_patches_are_as_many_as_transformers_takes(width: int, height: int, patch: int, most: int) -> None:
    siglip2 = pytest.importorskip("transformers.models.siglip2.image_processing_siglip2")
    theirs = siglip2.get_image_size_for_max_num_patches(height, width, patch, most)
    assert PatchResize(patch, most).size(width, height) == theirs[::-1]


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_near_and_is_on_record(folders, image_models, kind: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, *AS_THEY_ARE[kind], 3), np.uint8)
    rounded = load_image_model(f"hf/{folders[kind]}", bf16=True)
    cut = np.stack([rounded.preparation.cut(frame) for frame in frames])
    exact = image_models[kind](cut)
    assert 0 < abs(rounded(cut) - exact).max() < 0.1 * abs(exact).max()
    assert rounded.also["precision"] == "bfloat16"


def test_what_makes_no_sense_with_such_a_model_is_refused(folders, tmp_path: Path) -> None:
    name = f"hf/{folders['clip']}"
    with pytest.raises(InputError, match=r"a\.pth: .* brings its own weights"):
        load_image_model(name, "a.pth")
    with pytest.raises(InputError, match=r"--layer c3: .* leave --layer out"):
        load_image_model(name, layer="c3")
    with pytest.raises(InputError, match=r"--bf16: .*only hf/NAME"):
        load_image_model("resnet152", bf16=True)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"size": {"height": 32, "width": 40}}, "not offered"),
        ({"do_center_crop": False}, "not offered"),
        ({"do_resize": False}, "not offered"),
        ({"rescale_factor": 1.0}, "not offered"),
        ({"image_mean": [0.5]}, "not three numbers"),
        ({"size": {}}, "cannot be understood"),
        ({"image_std": [0.5, 0, 0.5]}, "not above 0"),
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 40, "width": 40}}, "the model takes 32"),
        (None, "preparation of pictures cannot be loaded"),
    ],
)
def test_preparations_that_are_not_offered_or_damaged_are_named(tmp_path: Path, changed: dict | None, why: str) -> None:
    path = tiny_joint_model(tmp_path / "clip", "clip") / "preprocessor_config.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, **changed}) if changed is not None else "{")
    with pytest.raises(InputError, match=rf"clip.*{why}"):
        load_image_model(f"hf/{tmp_path / 'clip'}")


@pytest.mark.skipif("siglip2" not in KINDS, reason="this transformers has no SigLIP 2")
@pytest.mark.parametrize("changed", [{"patch_size": 0}, {"patch_size": 16}, {"max_num_patches": 0}])
def test_patches_that_the_model_does_not_take_are_named(tmp_path: Path, changed: dict) -> None:
    path = tiny_joint_model(tmp_path / "siglip2", "siglip2") / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(InputError, match=rf"the model takes patches of {PATCH}"):
        load_image_model(f"hf/{tmp_path / 'siglip2'}")


def test_older_forms_of_sizes_are_read(folders, tmp_path: Path) -> None:
    path = tiny_joint_model(tmp_path / "clip", "clip") / "preprocessor_config.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "size": SIDE, "crop_size": SIDE}))
    assert (
        load_image_model(f"hf/{tmp_path / 'clip'}").preparation == load_image_model(f"hf/{folders['clip']}").preparation
    )
