"""Small corpora in the forms in which ActivityNet Captions, Charades-STA and DiDeMo are public, converted for use."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from method_tvr.dataset.annotations import Query, Video, load_queries, load_videos
from method_tvr.dset_configs import DATASETS, DatasetConfig
from utils.annotations import convert, convert_features
from utils.feature_files.feature_file import new_feature_file

MAX_CTX_L = 24  # of runs on these corpora: some of their videos have more rows
VIDEO_SIZE, QUERY_SIZE = 10, 8
SPLITS = ("train", "val", "test")

# seconds of the videos, and moments in them: of all lengths, next to each other, up to the whole video, past its end
ANET = {
    "train.json": {
        "v_a1": (82.73, [[0.83, 19.86], [17.37, 60.81], [56.26, 82.99]]),
        "v_a2": (12.4, [[0, 12.4], [3.1, 6.2]]),
        "v_a3": (235.7, [[0.0, 235.7], [200.3, 235.7], [1.2, 2.9]]),
        "v_a4": (61.7, [[41.95, 61.1], [0.31, 30.85]]),
        "v_a5": (118.01, [[5.9, 112.11], [5.9, 17.7]]),
        "v_a6": (30.5, [[0, 3.05], [27.1, 30.5], [0, 30.5]]),
    },
    "val_1.json": {
        "v_b1": (55.15, [[0, 4.14], [4.14, 31.99], [27.57, 55.15]]),
        "v_b2": (8.6, [[0, 8.6], [2.15, 8.17]]),
        "v_b3": (201.2, [[0, 201.2], [10.06, 48.29]]),
        "v_b4": (19.3, [[9.65, 19.3]]),
    },
    "val_2.json": {  # other sentences of the same videos
        "v_b1": (55.15, [[0.28, 55.0], [12.41, 20.96]]),
        "v_b2": (8.6, [[1.29, 3.44]]),
        "v_b3": (201.2, [[150.9, 201.2]]),
        "v_b4": (19.3, [[0, 19.3], [0.1, 9.65]]),
    },
}
STA_LINES = {
    "charades_sta_train.txt": [
        "AO8RW 0.0 6.9##a person is putting a book on a shelf.",
        "AO8RW 20.1 33.67##person begins to put books on a shelf.",
        "Y6R7T 20.8 30.0##person laughing at the television.",
        "3YY88 0.0 11.8##the person is opening a door.",
        "3YY88 0.0 12.2##person opens the door ## slowly.",
        "CMYZU 1.4 9.9##the person sits in a chair.",
        "J9LAA 12.9 25.0##person takes a bag.",
        "P0GO9 0.5 46.2##a person is awakening.",
        "QZ0KH 3.3 8.1##person throws a pillow.",
        "ZKPMD 8.8 17.6##person closes a box.",
    ],
    "charades_sta_test.txt": [
        "3MSZA 24.3 30.4##person turn a light on.",
        "3MSZA 0.0 30.96##person flips the light switch.",
        "WQ8Z3 0.0 5.2##person eats a sandwich.",
        "WQ8Z3 2.6 7.8##person puts the plate down.",
        "T5ECU 30.2 61.0##person walks to the window.",
    ],
}
CHARADES_LENGTHS = {
    "Charades_v1_train.csv": {
        "AO8RW": 33.67, "Y6R7T": 29.5, "3YY88": 12.2, "CMYZU": 10.4, "J9LAA": 61.25, "P0GO9": 46.2, "QZ0KH": 8.1,
        "ZKPMD": 17.6,
    },
    "Charades_v1_test.csv": {"3MSZA": 30.96, "WQ8Z3": 7.8, "T5ECU": 60.5},
}  # fmt: skip
CHARADES_HEAD = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length"
DIDEMO: dict[str, list[tuple[str, int, list[list[int]]]]] = {  # video, segments, what each annotator chose
    "train_data.json": [
        ("10@N01_1.mov", 6, [[1, 1], [0, 1], [1, 1], [1, 1]]),
        ("10@N01_1.mov", 6, [[5, 5], [4, 5], [5, 5], [2, 5]]),
        ("11@N02_2.avi", 5, [[0, 4], [0, 4], [0, 3], [0, 4]]),
        ("12@N03_3.mp4", 3, [[0, 0], [1, 1], [0, 0], [0, 2]]),
        ("13@N04_4.mov", 6, [[2, 3], [2, 3], [3, 3], [2, 2]]),
        ("14@N05_5.mov", 1, [[0, 0], [0, 0], [0, 0], [0, 0]]),
    ],
    "val_data.json": [
        ("20@N06_6.mov", 6, [[0, 0], [0, 0], [0, 1], [4, 5]]),
        ("21@N07_7.mov", 5, [[2, 2], [2, 2], [2, 2], [2, 2]]),
        ("22@N08_8.mov", 6, [[0, 0], [2, 2], [4, 4], [0, 5]]),  # no two agree: no prediction is right for two
        ("22@N08_8.mov", 6, [[0, 5], [0, 5], [0, 5], [1, 1]]),
    ],
    "test_data.json": [
        ("30@N09_9.mov", 6, [[5, 5], [5, 5], [5, 5], [5, 5]]),
        ("31@N10_1.mov", 2, [[0, 1], [0, 1], [1, 1], [0, 0]]),
        ("31@N10_1.mov", 2, [[1, 1], [0, 0], [1, 1]]),
        ("32@N11_2.mov", 6, [[1, 1], [3, 3], [5, 5], [0, 5]]),
    ],
}


@dataclass(frozen=True)
class PublicCorpus:
    """A converted corpus with generated features, where its dataset's entry looks for them.

    Attributes:
        name: of the dataset.
        root: what stands for the project's root folder: relative paths are tried from the current one first.
        rows: {vid_name: rows of features}, before they are averaged down.
        options: what a run on it needs besides `--dset_name`.
    """

    name: str
    root: Path
    rows: dict[str, int]
    options: dict[str, object]

    @property
    def dataset(self) -> DatasetConfig:
        return DATASETS[self.name]

    @property
    def folder(self) -> Path:
        return self.root / "data" / self.name

    @property
    def videos(self) -> dict[str, dict[str, Video]]:
        return load_videos(self.root / self.dataset.video_duration_idx_path)

    def n_clips(self, vid_name: str) -> int:
        """Clips of a video as the model sees them."""
        return min(self.rows[vid_name], MAX_CTX_L)

    def path(self, split: str) -> Path:
        return self.root / self.dataset.annotation_path(split)

    def queries(self, split: str) -> list[Query]:
        return load_queries(self.path(split), self.videos)


def make_public_corpus(name: str, root: Path) -> PublicCorpus:
    """Write a dataset's files as they are public, and convert them as its users do."""
    public = root / "public"
    public.mkdir(parents=True)
    {"anet_cap": _write_anet, "charades_sta": _write_charades, "didemo": _write_didemo}[name](public)
    share = ["--val_share", "0.3"] if name == "charades_sta" else []
    convert.main([name, "--in", str(public), "--out", str(root / "data" / name), *share])
    rng = np.random.default_rng(6)
    videos = load_videos(root / DATASETS[name].video_duration_idx_path)
    names = sorted({vid_name for entries in videos.values() for vid_name in entries})
    rows = {vid_name: (3, 9, 61, 24, 5, 40)[number % 6] for number, vid_name in enumerate(names)}
    features = {vid_name: rng.normal(size=(n, VIDEO_SIZE)).astype(np.float32) for vid_name, n in rows.items()}
    options: dict[str, object] = {"vid_feat_type": "c3d"} if name == "charades_sta" else {}
    corpus = PublicCorpus(name, root, rows, options)
    _write_video_features(corpus, public, features)
    with new_feature_file(root / DATASETS[name].query_feature_path(with_sub=False)) as out:
        for split in SPLITS:
            for query in corpus.queries(split):
                out.put(str(query.desc_id), rng.normal(size=(len(query.desc.split()), QUERY_SIZE)).astype(np.float32))
    return corpus


def _write_video_features(corpus: PublicCorpus, public: Path, features: dict[str, np.ndarray]) -> None:
    """One dataset's come as a folder of npy files, another's in groups, the third's in the h5 form at once."""
    dataset = corpus.dataset
    out = corpus.root / dataset.video_feature_path(
        str(corpus.options.get("vid_feat_type", next(iter(dataset.video_files))))
    )
    if corpus.name == "anet_cap":
        for vid_name, rows in features.items():
            np.save(public / f"{vid_name.removeprefix('v_')}.npy", rows)
        durations = str(corpus.root / dataset.video_duration_idx_path)
        source = ["--src", str(public), "--add_prefix", "v_", "--videos", durations]
        convert_features.main([*source, "--out", str(out), "--about", "model=i3d"])
    elif corpus.name == "charades_sta":
        with h5py.File(public / "c3d.hdf5", "w") as file:
            for vid_name, rows in features.items():
                file.create_group(vid_name)["c3d_features"] = rows
        convert_features.main(["--src", str(public / "c3d.hdf5"), "--dataset", "c3d_features", "--out", str(out)])
    else:
        out.parent.mkdir(parents=True)
        with h5py.File(out, "w") as file:
            file.update(features)


def _write_anet(folder: Path) -> None:
    for name, videos in ANET.items():
        content = {
            vid_name: {
                "duration": duration,
                "timestamps": moments,
                "sentences": [f" Somebody does thing {number} in {vid_name}." for number in range(len(moments))],
            }
            for vid_name, (duration, moments) in videos.items()
        }
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def _write_charades(folder: Path) -> None:
    for name, lines in STA_LINES.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for name, lengths in CHARADES_LENGTHS.items():
        rows = [f'{vid},HR43,Den,6,7,Yes,"A ""script"".",book,Said.,c024 0.00 6.90,{s}' for vid, s in lengths.items()]
        (folder / name).write_text("\n".join([CHARADES_HEAD, *rows, ""]), encoding="utf-8")


def _write_didemo(folder: Path) -> None:
    for name, entries in DIDEMO.items():
        content: list[dict[str, Any]] = [
            {
                "annotation_id": 100 + number,
                "dl_link": "https://www.flickr.com/video_download.gne?id=1",
                "video": vid_name,
                "description": f"the dog jumps {number} times",
                "times": times,
                "num_segments": n_segments,
            }
            for number, (vid_name, n_segments, times) in enumerate(entries)
        ]
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
