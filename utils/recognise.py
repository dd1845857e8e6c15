"""What a file or folder is that somebody brings, and how it becomes this project's: `bash data/check.sh ANYTHING`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from standalone_eval.files import forms
from utils.annotations.public_files import PUBLIC, other_annotations
from utils.basic_utils import first_few, read_bytes
from utils.feature_files.feature_file import FeatureFile
from utils.feature_forms.open_source import forms_in
from utils.feature_forms.torch_files import TorchFolder
from utils.inventory.video_folder import PICTURE_SUFFIXES, SUBTITLE_SUFFIXES, VIDEO_SUFFIXES

CONVERT = "python utils/annotations/convert.py"
CONVERT_FEATURES = "python utils/annotations/convert_features.py"
EVALUATE = "python standalone_eval/eval.py"
EXTRACT = "bash utils/extract_features.sh"
DATASET_WORDS = {  # of what people call files and folders
    "highlight": "qvhighlights", "qvh": "qvhighlights", "tacos": "tacos", "charades": "charades_sta",
    "didemo": "didemo", "activitynet": "anet_cap", "anet": "anet_cap", "tvr": "tvr",
}  # fmt: skip
DATASET_OF = {forms.ACTIVITYNET: "anet_cap", forms.CHARADES: "charades_sta", forms.DIDEMO: "didemo", forms.MTVR: "tvr"}
MORE = {forms.VERIFIED: " --durations data/DATASET/DATASET_video2dur_idx.json", forms.MTVR: " --language zh"}
TABLES = {".csv", ".tsv"}
ARCHIVES = {".zip", ".gz", ".tgz", ".tar", ".bz2", ".xz", ".7z"}
LOOKED_AT = 1000  # entries of a folder


@dataclass(frozen=True)
class Recognised:
    """What something is, and what to do with it: a sentence, or a command."""

    what: str
    how: str

    def __str__(self) -> str:
        return f"is {self.what}\n  {self.how}"


def recognise(path: Path) -> Recognised | None:
    """What lies at a path; None where it is nothing that is known. An `InputError` if it cannot be read."""
    return _folder(path) if path.is_dir() else _file(path)


def _file(path: Path) -> Recognised | None:
    suffix = path.suffix.lower()
    if suffix in (".h5", ".hdf5"):
        return _h5(path)
    if suffix in (".json", ".jsonl", ".txt"):
        return _text(path)
    if suffix in VIDEO_SUFFIXES:
        return Recognised("a video", f"with the others of its folder: {EXTRACT} --videos {path.parent} --out data/my")
    if suffix in SUBTITLE_SUFFIXES:
        return Recognised("subtitles", f"{EXTRACT} --videos VIDEOS --subtitles {path.parent} --out data/my")
    if suffix in TABLES:
        return Recognised("a table", f"of sentences: {EXTRACT} --videos VIDEOS --queries {path} --out data/my")
    if suffix in ARCHIVES:
        return Recognised("an archive", "unpack it, and give the folder")
    if path.name.startswith("model.ckpt"):
        return _model(path.parent)
    return _features(path)


def _folder(path: Path) -> Recognised | None:
    if (path / "opt.json").exists() and list(path.glob("model.ckpt*")):
        return _model(path)
    if (found := _annotation_folder(path)) or (found := _features(path)):
        return found
    suffixes = {entry.suffix.lower() for entry in _entries(path)}
    if suffixes & (VIDEO_SUFFIXES | PICTURE_SUFFIXES):
        what = "videos" if suffixes & VIDEO_SUFFIXES else "pictures"
        return Recognised(f"a folder of {what}", f"{EXTRACT} --videos {path} --out data/my")
    if suffixes & SUBTITLE_SUFFIXES:
        return Recognised("a folder of subtitles", f"{EXTRACT} --videos VIDEOS --subtitles {path} --out data/my")
    return None


def _entries(folder: Path) -> Iterator[Path]:
    """Some of the files of a folder and of those in it."""
    for number, entry in enumerate(folder.rglob("*")):
        if number == LOOKED_AT:
            return
        if entry.is_file():
            yield entry


def _text(path: Path) -> Recognised | None:
    form = forms.form_of_text(read_bytes(path).decode("utf-8", "replace"))
    if form in PUBLIC:
        return Recognised(form.name, _conversion(form, path.parent, path.name))
    evaluation = f"{EVALUATE} --submission_path {path} --gt_path ANNOTATIONS.jsonl --save_path metrics.json"
    ours = {
        forms.ANNOTATIONS: "ours already: as --train_path or --eval_path; a folder with them is checked whole",
        forms.DURATIONS: "ours already: as --video_duration_idx_path; a folder with them is checked whole",
        forms.PREDICTIONS: evaluation,
        forms.MOMENT_DETR_PREDICTIONS: evaluation,
        forms.RANKED: f"{EVALUATE} --submission_path PREDICTIONS.json --gt_path {path} --save_path metrics.json",
    }
    if form in ours:
        return Recognised(form.name, ours[form])
    return None if form is None else Recognised(form.name, form.remedy)


def _annotation_folder(path: Path) -> Recognised | None:
    found = other_annotations(path)
    if not found:
        return None
    names, form = [name.name for name, _ in found], found[0][1]
    kinds = "; ".join(dict.fromkeys(kind.name for _, kind in found))
    return Recognised(f"a folder of {kinds}: {first_few(names)}", _conversion(form, path, " ".join(names)))


def _conversion(form: forms.Form, folder: Path, names: str) -> str:
    """The command that converts annotations of a form, of a dataset that names tell."""
    words = f"{folder.name} {names}".lower()
    told = (dataset for word, dataset in DATASET_WORDS.items() if word in words)
    dataset = DATASET_OF.get(form) or next(told, "custom")
    more = MORE.get(form, "").replace("DATASET", dataset)
    return f"{CONVERT} {dataset} --in {folder} --out data/{'my' if dataset == 'custom' else dataset}{more}"


def _model(folder: Path) -> Recognised:
    return Recognised("a trained model", f"bash method_tvr/scripts/inference.sh {folder} val")


def _h5(path: Path) -> Recognised:
    with FeatureFile(path) as file:
        if inner := file.inner_names():
            how = f"{CONVERT_FEATURES} --src {path} --dataset {inner[0]} --out video.h5"
            return Recognised(f"an h5 file with a group for each video, and in it {first_few(inner)}", how)
        n, width, made_by = len(file.feature_keys()), file.width(), file.made_by().get("made_by")
    by = f", made by {made_by}" if made_by else ""
    how = "ours already: as --vid_feat_path, --sub_bert_path or --desc_bert_path, or under a name of data/README.md"
    return Recognised(f"features of {n:,} videos or queries, {width} wide{by}", how)


def _features(path: Path) -> Recognised | None:
    """Features in a form of others."""
    folder = path if path.is_dir() else path.parent
    forms = forms_in(folder) if path.is_dir() or path.suffix in (".npy", ".npz", ".mdb", ".bin") else []
    if path.suffix in TorchFolder.suffixes:
        return Recognised("a file of torch", f"if it holds features: {CONVERT_FEATURES} --src {path} --out video.h5")
    if not forms:
        return None
    how = f"{CONVERT_FEATURES} --src {folder} --out video.h5 (utils/feature_forms/README.md)"
    return Recognised(f"{'a folder' if path.is_dir() else 'one file of a folder'} of features, {forms[0]}", how)
