"""Moment-DETR's files -> conversion -> check -> training -> inference -> both evaluations, as users type it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from method_tvr import data_check, inference, train
from method_tvr.dset_configs import DATASETS
from standalone_eval import eval as standalone
from standalone_eval import to_moment_detr
from tests.support.runs.commands import Finished
from tests.support.runs.tiny_corpus import as_argv
from utils.annotations import convert, convert_features
from utils.annotations import to_moment_detr as annotations_out
from utils.basic_utils import read_json, read_jsonl
from utils.feature_files.feature_file import FeatureFile

Run = Callable[..., Finished]
CLIP_SIZE, SLOWFAST_SIZE, TEXT_SIZE = 6, 4, 8
HERE: dict[str, object] = {"device": -1, "num_workers": 0}
SMALL: dict[str, object] = {"hidden_size": 16, "n_heads": 2, "n_epoch": 2, "bsz": 4, "max_vcmr_video": 4, **HERE}
QVHIGHLIGHTS = {  # video, seconds, windows
    "train": [
        ("aa_60.0_210.0", 48, [[0, 4], [20, 30], [40, 48]]),
        ("aa_60.0_210.0", 48, [[10, 26]]),
        ("bb_0.0_90.0", 30, [[28, 30]]),
        ("cc_1.0_2.0", 18, [[0, 18]]),
        ("dd_1.0_2.0", 46, [[2, 4], [6, 8], [12, 14], [20, 22], [30, 44]]),
    ],
    "val": [
        ("ee_60.0_210.0", 40, [[0, 2], [10, 14], [20, 22], [30, 40]]),  # no two overlap: any is an answer
        ("ff_60.0_210.0", 48, [[6, 20]]),
        ("gg_60.0_210.0", 20, [[0, 20]]),
    ],
    "test": [("hh_60.0_210.0", 44, None), ("ii_60.0_210.0", 48, None)],
}
TACOS = {
    "train": [("s13-d21", 96.3, [[4.7, 12.1]]), ("s13-d21", 96.3, [[12.1, 95.0]]), ("s14-d35", 60.2, [[0.3, 3.4]])],
    "val": [("s34-d28", 1000.5, [[6.8, 16.5]]), ("s34-d28", 1000.5, [[980.3, 998.9]])],
}
FILES = {"qvhighlights": "highlight_{}_release.jsonl", "tacos": "{}.jsonl"}


def write_public(folder: Path, name: str) -> dict[str, Path]:
    """A dataset as Moment-DETR has it: annotations, whose files are returned, and a folder of npz for each feature."""
    rng, files, number = np.random.default_rng(3), {}, 0
    for kind in ("clip", "slowfast", "text"):
        (folder / kind).mkdir(parents=True)
    for split, queries in {"qvhighlights": QVHIGHLIGHTS, "tacos": TACOS}[name].items():
        lines = []
        for vid, duration, windows in queries:
            number += 1
            qid = 2500 + number if name == "qvhighlights" else f"{vid}_{number}"
            row: dict[str, Any] = {"qid": qid, "query": f"Thing {number}", "duration": duration, "vid": vid}
            lines.append(row if windows is None else {**row, "relevant_windows": windows})
            hidden = rng.normal(size=(number % 4 + 2, TEXT_SIZE)).astype(np.float32)
            np.savez(folder / "text" / f"qid{qid}.npz", last_hidden_state=hidden, pooler_output=hidden[0])
            n_clips = int(duration / 2)
            np.savez(folder / "clip" / f"{vid}.npz", features=rng.normal(size=(n_clips, CLIP_SIZE)).astype(np.float16))
            longer = rng.normal(size=(n_clips + 1, SLOWFAST_SIZE)).astype(np.float16)
            np.savez(folder / "slowfast" / f"{vid}.npz", features=longer)
        files[split] = folder / FILES[name].format(split)
        files[split].write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return files


@pytest.mark.parametrize("name", ["qvhighlights", "tacos"])
def test_from_their_files_to_our_figures_and_theirs(name, tmp_path, monkeypatch, run_main: Run):
    public = write_public(tmp_path / "public", name)
    monkeypatch.chdir(tmp_path)
    dataset, out = DATASETS[name], tmp_path / "data" / name
    told = run_main(data_check.main, [str(tmp_path / "public")])
    assert f"convert.py {name if name == 'qvhighlights' else 'custom'} --in" in told.out
    convert.main([name, "--in", "public", "--out", str(out)])
    releases = [str(out / f"{name}_{split}_release.jsonl") for split in public]
    features, queries = dataset.video_feature_path("clip_slowfast"), dataset.query_feature_path(with_sub=False)
    durations = f"data/{name}/{name}_video2dur_idx.json"
    convert_features.main(
        ["--src", "public/clip", "public/slowfast", "--normalise_parts", "--videos", durations, "--out", features]
    )
    convert_features.main(["--src", "public/text", "--queries", *releases, "--out", queries])
    assert FeatureFile(features).width() == CLIP_SIZE + SLOWFAST_SIZE
    assert sorted(FeatureFile(queries).keys()) == sorted(str(row["desc_id"]) for f in releases for row in read_jsonl(f))

    checked = run_main(data_check.main, [str(out), "--splits", "train", "val"])
    assert checked.code == 0, checked.out
    assert ("1 of 3 videos have more than --max_ctx_l 480 clips" in checked.out) == (name == "tacos")

    argv = as_argv({"dset_name": name, "exp_id": "chain", "ctx_mode": "video_tef", **SMALL})
    assert run_main(train.main, argv).code == 0
    (folder,) = (tmp_path / "results").iterdir()
    opt = read_json(folder / "opt.json")
    assert (opt["clip_length"], opt["label_rule"], opt["several"]) == (2.0, "best_iou", dataset.several)
    found = run_main(inference.main, as_argv({"model_dir": folder, "eval_id": "val", **HERE}))
    assert found.code == 0, found.err
    stem = folder / f"inference_{name}_val_val_predictions_VCMR_SVMR_VR"
    metrics = read_json(stem.with_name(f"{stem.name}_metrics.json"))

    back = tmp_path / "back.jsonl"
    annotations_out.main(["--in", str(out / f"{name}_val_release.jsonl"), "--out", str(back)])
    assert read_jsonl(back) == read_jsonl(public["val"])
    theirs, files = tmp_path / "theirs.jsonl", {"gt_path": out / f"{name}_val_release.jsonl"}
    done = run_main(to_moment_detr.main, as_argv({"submission_path": f"{stem}.json", **files, "save_path": theirs}))
    assert done.code == 0, done.err
    typed = {"submission_path": theirs, "gt_path": public["val"], "save_path": tmp_path / "m.json", "ks": [1]}
    evaluated = run_main(standalone.main, as_argv({**typed, "iou_thds": list(dataset.iou_thds)}))
    assert evaluated.code == 0, evaluated.err
    first = {key: recall for key, recall in metrics["SVMR"].items() if key.endswith("r1")}
    assert read_json(tmp_path / "m.json")["SVMR"] == first
