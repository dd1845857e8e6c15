"""What differs between datasets, one entry each. Nothing elsewhere asks for a dataset by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from method_tvr.dataset.clip_times import AUTO, BEST_IOU, FLOOR_CEIL
from standalone_eval.metrics import AGREE, ANY
from standalone_eval.ranking.ndcg import NDCG
from utils.basic_utils import PROJECT_ROOT
from utils.mini_corpus.settings import MiniSettings, generating_command
from utils.mini_corpus.word_vectors import LATENT_SIZE

MODALITIES = ("video", "sub")  # of context, in the model's order
CLIP_SUFFIX = "cl-1.5"
VIDEO_FILES = {  # VID_FEAT_TYPE of train.sh: what the file is called after the prefix
    "resnet_i3d": f"resnet152_rgb_max_i3d_rgb600_avg_cat_{CLIP_SUFFIX}.h5",
    "resnet": f"resnet152_rgb_max_{CLIP_SUFFIX}.h5",
    "i3d": f"i3d_rgb600_avg_{CLIP_SUFFIX}.h5",
}
CONVERTED_FILES = {
    name: f"{name}.h5" for name in ("i3d", "c3d", "vgg", "resnet", "resnet_i3d", "clip_slowfast", "slowfast", "clip")
}
JOINT_FILES = {"joint": f"joint_{CLIP_SUFFIX}.h5"}  # vectors of one space with those of sentences
VID_FEAT_TYPES = sorted({*VIDEO_FILES, *CONVERTED_FILES, *JOINT_FILES})
TACOS_CLIPS = 480  # of 2 s: its longest video has 465
ANY_LENGTH = 129  # as max_pred_l: spans up to a whole video of the 128 clips that the model takes by default


@dataclass(frozen=True)
class DatasetConfig:
    """A dataset's properties. Those that are also options are what these default to."""

    name: str  # what `--dset_name` says
    root: str | None  # folder of its files, relative to the project root; None: it has none, options name all files
    prefix: str  # what its file names begin with
    clip_length: float | str = 1.5  # seconds, or `AUTO`: each video's duration divided by its number of clips
    label_rule: str = FLOOR_CEIL  # which clips a moment is labelled with, see `clip_times`
    min_pred_l: int = 2  # clips from a predicted moment's first to its last boundary: min <= n < max
    max_pred_l: int = 16
    subtitles: bool = True  # whether videos have any
    query_types: bool = True  # whether queries are of types (v, t, vt) that metrics are broken down by
    iou_thds: tuple[float, ...] = (0.5, 0.7)  # what recalls are reported at
    recall_ks: tuple[int, ...] = (1, 5, 10, 100)
    several: str = AGREE  # what queries with several moments ask for, of `SEVERAL`; `ANY` where these are windows
    final_nms_thd: float = 0.5  # of temporal NMS, in the evaluation that ends training
    test_split: str = "test_public"  # what the split name `test` means
    # {VID_FEAT_TYPE: name of the file after the prefix}; the first is the default
    video_files: Mapping[str, str] = field(default_factory=lambda: VIDEO_FILES)
    # whether runs without subtitles read query features of their own, of a language model that has seen no subtitles
    query_only_features: bool = True
    recipe: Mapping[str, Any] = field(default_factory=dict)  # options of training that start elsewhere than TVR's
    recipe_note: str = ""  # what is to be known about them
    generate: Callable[[Path], None] | None = None  # writes it, if nothing is there; None where it must be downloaded
    # what to do about missing or defective files, said to users
    annotation_remedy: str = "write it in the form that data/README.md shows"
    feature_remedy: str = "extract it in the form that data/README.md shows"

    def split_name(self, split: str) -> str:
        """The split's name in file names and in video2dur."""
        return self.test_split if split == "test" else split

    def annotation_path(self, split: str) -> str:
        return f"{self.root}/{self.prefix}_{split}_release.jsonl"

    @property
    def video_duration_idx_path(self) -> str:
        return f"{self.root}/{self.prefix}_video2dur_idx.json"

    def video_feature_path(self, vid_feat_type: str) -> str:
        return f"{self.features}/video_feature/{self.prefix}_{self.video_files[vid_feat_type]}"

    @property
    def sub_feature_path(self) -> str:
        return f"{self.features}/bert_feature/sub_query/{self.prefix}_sub_pretrained_w_sub_query_max_{CLIP_SUFFIX}.h5"

    def query_feature_path(self, with_sub: bool) -> str:
        """The query features of runs with subtitles, or of those without."""
        if with_sub or not self.query_only_features:
            return f"{self.features}/bert_feature/sub_query/{self.prefix}_query_pretrained_w_sub_query.h5"
        return f"{self.features}/bert_feature/query_only/{self.prefix}_query_pretrained_w_query.h5"

    @property
    def features(self) -> str:
        """The folder of its features."""
        return f"{self.root}/{self.prefix}_feature_release"

    def default_paths(self, split: str, vid_feat_type: str, with_sub: bool) -> dict[str, str]:
        """{option: file} of a run that evaluates on `split`; what the dataset does not have is left out."""
        if self.root is None:
            return {}
        paths = {
            "train_path": self.annotation_path("train"),
            "eval_path": self.annotation_path(split),
            "video_duration_idx_path": self.video_duration_idx_path,
            "desc_bert_path": self.query_feature_path(with_sub),
        }
        if vid_feat_type in self.video_files:
            paths["vid_feat_path"] = self.video_feature_path(vid_feat_type)
        if self.subtitles:
            paths["sub_bert_path"] = self.sub_feature_path
        return paths

    def ensure(self, files: Iterable[str]) -> None:
        """Generate the dataset before the first use of one of its files, if it can be generated and is not there.

        An `InputError` if it is there in part: nothing that is there is replaced.
        """
        if self.generate is None or self.root is None:
            return
        root = Path(self.root)
        if any(Path(file).is_relative_to(root) or Path(file).is_relative_to(PROJECT_ROOT / root) for file in files):
            self.generate(PROJECT_ROOT / root)


@dataclass(frozen=True)
class RankedDatasetConfig(DatasetConfig):
    """TVR-Ranking's files (arXiv 2407.06597) as published, of another dataset's videos, with that one's features."""

    of: str = "."  # the other one's folder, from that of this one's folder

    def annotation_path(self, split: str) -> str:
        return f"{self.root}/{'train_top20' if split == 'train' else split}.json"

    @property
    def video_duration_idx_path(self) -> str:
        return f"{self.root}/video_corpus.json"

    def query_feature_path(self, with_sub: bool) -> str:
        return f"{self.root}/query_bert.h5"

    @property
    def features(self) -> str:
        return str(Path(str(self.root)).parent / self.of / f"{self.prefix}_feature_release")


def _generated(name: str, **properties: Any) -> DatasetConfig:
    """A corpus that `utils/mini_tvr.py` makes; its word table is the same with and without subtitles."""
    settings = MiniSettings(prefix=name, subtitles=properties.get("subtitles", True))
    if properties.get("video_files") == JOINT_FILES:
        settings = replace(settings, vid_feat_types=("joint",), vid_feat_size=LATENT_SIZE, text_feat_size=LATENT_SIZE)
    command = generating_command(f"data/{name}", name, asdict(settings))
    remedy = f"make the corpus again: {command}"

    def generate(root: Path) -> None:
        from utils.mini_tvr import ensure  # here: most runs make no corpus, and it writes h5 files

        ensure(root, settings)

    return DatasetConfig(
        name,
        f"data/{name}",
        name,
        query_only_features=False,
        generate=generate,
        annotation_remedy=remedy,
        feature_remedy=remedy,
        **properties,
    )


def _generate_ranking(root: Path) -> None:
    from utils.mini_tvr import ensure_ranking  # see `_generated`

    ensure_ranking(root, root.parent / "mini")


def _converted(name: str, **properties: Any) -> DatasetConfig:
    """A public dataset of videos alone, brought into this project's forms by `utils/annotations`."""
    return DatasetConfig(
        name,
        f"data/{name}",
        name,
        clip_length=properties.pop("clip_length", AUTO),
        label_rule=BEST_IOU,
        min_pred_l=1,
        max_pred_l=properties.pop("max_pred_l", ANY_LENGTH),
        subtitles=False,
        query_types=False,
        test_split="test",
        video_files={kind: CONVERTED_FILES[kind] for kind in properties.pop("features")},
        recipe={"ctx_mode": "video_tef", **properties.pop("recipe", {})},
        annotation_remedy=f"convert it: python utils/annotations/convert.py {name} (utils/annotations/README.md)",
        feature_remedy="convert or extract it (utils/annotations/README.md)",
        **properties,
    )


DATASETS = {
    dataset.name: dataset
    for dataset in (
        DatasetConfig(
            name="tvr",
            root="data",
            prefix="tvr",
            annotation_remedy="copy it from the data folder of TVR's repository (data/README.md, Annotations)",
            feature_remedy="download and unpack TVR's feature release (data/README.md, Features)",
        ),
        RankedDatasetConfig(
            "tvr_ranking",
            "data/tvr_ranking",
            "tvr",
            query_types=False,
            iou_thds=(0.3, 0.5, 0.7),
            final_nms_thd=-1,  # off, as published
            test_split="test",
            video_files={"i3d": VIDEO_FILES["i3d"]},
            recipe={
                "ctx_mode": "video_sub",
                "seed": 2024,
                "bsz": 512,
                "n_epoch": 200,
                "max_es_cnt": -1,
                "stop_task": NDCG,
            },
            recipe_note="is that of train_top20.json; train_top01 takes --n_epoch 4000, train_top40 --n_epoch 100",
            annotation_remedy="download it from huggingface.co/datasets/axgroup/TVR-Ranking (data/README.md)",
            feature_remedy="download TVR's feature release and TVR-Ranking's query_bert.h5 (data/README.md)",
        ),
        _converted(
            "anet_cap",
            features=("i3d", "c3d"),
            iou_thds=(0.3, 0.5, 0.7),
            recipe={"margin": 0.2, "lr": 2.5e-4, "q2c_alpha": 20},
            recipe_note="was never published: these are values to start from, not yet run on the real features",
        ),
        _converted("charades_sta", features=("i3d", "c3d", "vgg"), final_nms_thd=0.6),
        _converted("didemo", features=("resnet_i3d", "resnet", "i3d", "vgg")),
        _converted(
            "qvhighlights",
            features=("clip_slowfast", "slowfast", "clip"),
            clip_length=2.0,
            several=ANY,
        ),
        _converted(
            "tacos",
            features=("clip_slowfast", "slowfast", "clip", "c3d"),
            clip_length=2.0,
            max_pred_l=TACOS_CLIPS + 1,
            iou_thds=(0.3, 0.5, 0.7),
            recipe={"max_ctx_l": TACOS_CLIPS},
            recipe_note="takes the longest videos, of 15 minutes and a half, whole",
        ),
        _generated("mini"),
        RankedDatasetConfig(
            "mini_ranking",
            "data/mini_ranking",
            "mini",
            of="mini",
            query_types=False,
            iou_thds=(0.3, 0.5, 0.7),
            final_nms_thd=-1,
            test_split="test",
            recipe={"ctx_mode": "video_sub", "max_es_cnt": -1, "stop_task": NDCG},
            generate=_generate_ranking,
            annotation_remedy="remove the folder, and have it made again",
            feature_remedy="remove data/mini and data/mini_ranking, and have them made again",
        ),
        _generated("mini_video", subtitles=False, query_types=False, recipe={"ctx_mode": "video_tef"}),
        _generated("mini_joint", video_files=JOINT_FILES, recipe={"ctx_mode": "video_sub"}),
        DatasetConfig("custom", None, "custom", several=ANY, test_split="test", video_files={}),
    )
}
