"""A corpus of a tiny model of images and text, whose videos have scenes that differ, and a folder that searches it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from method_tvr import train
from tests.support.joint_corpus import extract
from tests.support.joint_models import tiny_joint_model
from tests.support.text_models import run_command
from tests.support.video_files import write_video

RATE, SCENE_S, N_SCENES = 4, 3, 3  # pictures a second; seconds of a scene, of which each video has so many
NAMES = ("harbor", "kitchen", "street")


def scene(video: int, number: int) -> np.ndarray:
    """(96, 128, 3) uint8: squares of colours that no other scene has."""
    drawn = np.random.default_rng(10 * video + number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.kron(drawn, np.ones((16, 16, 1), dtype=np.uint8))


def make_corpus(folder: Path, kind: str = "clip") -> Path:
    """Write videos and a model of `KINDS` into a folder, and extract the corpus `scenes` there."""
    for part in ("videos", "subtitles"):
        (folder / part).mkdir()
    for video, name in enumerate(NAMES):
        frames = [scene(video, number) for number in range(N_SCENES) for _ in range(SCENE_S * RATE)]
        write_video(folder / "videos" / f"{name}.mp4", rate=RATE, frames=frames)
    (folder / "subtitles" / "harbor.srt").write_text("1\n00:00:00,200 --> 00:00:01,400\nNora opens the door.\n")
    rows = [{"desc": "Ruth paints.", "vid_name": name, "ts": [0, 3], "desc_id": i} for i, name in enumerate(NAMES)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = f"hf/{tiny_joint_model(folder / 'model', kind)}"
    made = extract(folder, folder / "scenes", image_model=model, text_model=model)
    assert made.code == 0, made.err
    return folder / "scenes"


def make_model(corpus: Path, results: Path, **options: object) -> Path:
    """A results folder of the model without training over it."""
    features = corpus / "scenes_feature_release"
    (video,) = (features / "video_feature").glob("*.h5")
    (query,) = (features / "bert_feature").glob("*query_*_sentences.h5")
    (sub,) = (features / "bert_feature").glob("*sub_*_sentences_*.h5")
    given: dict[str, object] = {
        "dset_name": "custom",
        "ctx_mode": "video_sub",
        "model": "zero_shot",
        "eval_path": next(corpus.glob("scenes_*_release.jsonl")),
        "video_duration_idx_path": corpus / "scenes_video2dur_idx.json",
        "desc_bert_path": query,
        "sub_bert_path": sub,
        "vid_feat_path": video,
        "clip_length": 1.5,
        "device": -1,
        "num_workers": 0,
        "exp_id": "scenes",
        "min_pred_l": 1,
        "max_pred_l": 17,
        "label_rule": "best_iou",
        "results_root": results,
        **options,
    }
    made = run_command(train.main, [part for name, value in given.items() for part in (f"--{name}", value)])
    assert made.code == 0, made.err
    (folder,) = results.iterdir()
    return folder
