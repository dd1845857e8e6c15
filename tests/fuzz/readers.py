"""What is fuzzed: for each reader, how an input is made from a source of chance, and how it is read.

An input is fine when reading it ends in the reader's own refusal, or in something that passes the checks here.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np

from standalone_eval.check import Annotations, check_by_piece, check_file, check_files
from standalone_eval.eval import eval_retrieval, metrics_table
from standalone_eval.files import pieces
from standalone_eval.files.command import BadInput
from standalone_eval.files.writing import write_json
from standalone_eval.findings import Findings
from standalone_eval.make_submission import checked_member, write_zip
from tests.fuzz.hostile_h5 import ROWS, write_h5
from tests.fuzz.mutations import hostile_document, hostile_json, mutate_bytes
from utils.basic_utils import InputError
from utils.feature_files.feature_file import FeatureFile, new_feature_file

MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class Reader:
    """One reader under fuzz.

    Attributes:
        write: makes an input in an empty folder.
        read: reads it there, and raises AssertionError when it got something unusable.
        refusal: what may be raised.
        memory: bytes that any input may take, and bytes per byte of its files on top.
    """

    write: Callable[[Random, Path], object]
    read: Callable[[Path], object]
    refusal: type[Exception] = InputError
    memory: tuple[int, int] = (32 * MIB, 64)


VIDEOS = {"train": {"a": [12.5, 0], "b": [90, 1]}, "val": {"c": [30.25, 2]}, "test_public": {}}
QUERIES = [
    {"desc_id": number, "desc": f"query ü {number}", "vid_name": name, "ts": [1.5, 6 + number], "type": kind}
    for number, (name, kind) in enumerate([("a", "v"), ("b", "t"), ("b", "vt"), ("c", "v")])
]
SUBMISSION = {
    "video2idx": {"a": 0, "b": 1, "c": 2},
    **{
        task: [
            {"desc_id": row["desc_id"], "desc": row["desc"], "predictions": [[0, 1.5, 6.0, 0.9], [2, 0, 9, 1e-9]]}
            for row in QUERIES
        ]
        for task in ("VCMR", "SVMR", "VR")
    },
}


def _lines(rows: list[dict]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def _read_videos(folder: Path) -> None:
    from method_tvr.dataset.annotations import load_videos

    for videos in load_videos(folder / "in").values():
        assert all(type(v.idx) is int and 0 < v.duration < np.inf for v in videos.values())


def _read_queries(folder: Path) -> None:
    from method_tvr.dataset.annotations import Video, load_queries

    videos = {split: {name: Video(name, *entry) for name, entry in of.items()} for split, of in VIDEOS.items()}
    queries = load_queries(folder / "in", videos)
    for query in queries:
        assert type(query.desc_id) is int
        assert isinstance(query.desc, str)
        assert query.ts is None or 0 <= query.ts[0] <= query.ts[1] < 91


def _write_submission(rng: Random, folder: Path) -> None:
    (folder / "submission").write_bytes(hostile_document(rng, SUBMISSION))
    (folder / "truth").write_bytes(_lines(QUERIES))


def _write_truth(rng: Random, folder: Path) -> None:
    rows = QUERIES
    if rng.random() < 0.3:
        rows = [{**row, "ts": [row["ts"], [2, 3]] * rng.choice((1, 2, 40, 70))} for row in QUERIES]
    (folder / "submission").write_bytes(json.dumps(SUBMISSION).encode())
    (folder / "truth").write_bytes(hostile_document(rng, rows))


def _write_metrics(submission: Any, rows: list[dict], findings: Findings, folder: Path, **options: bool) -> None:
    for line in findings.lines():
        assert len(line) < 20_000
    if findings.errors:
        raise BadInput("\n".join(findings.lines()))
    with contextlib.suppress(BadInput):  # annotations without moments can be checked, not evaluated
        metrics = eval_retrieval(submission, rows, **options)
        metrics_table(metrics).encode()
        write_json(metrics, folder / "metrics.json")


def _evaluate(folder: Path) -> None:
    submission, rows, findings = check_files(str(folder / "submission"), str(folder / "truth"))
    with mock.patch.object(pieces, "PIECE", 100):
        annotations = Annotations.read(str(folder / "truth"), converting=False)
        by_piece = check_by_piece(str(folder / "submission"), annotations)
    assert by_piece.lines() == findings.lines()
    _write_metrics(submission, rows, findings, folder)
    kept = checked_member("val", str(folder / "submission"), str(folder / "truth"))
    write_zip({"val": kept}, str(folder / "out.zip"))
    with zipfile.ZipFile(folder / "out.zip") as archive:
        assert archive.namelist() == ["tvr_val_submission.json"]


def _write_moment_detr(rng: Random, folder: Path) -> None:
    queries = [{"qid": f"q{row['desc_id']}", "query": row["desc"], "vid": row["vid_name"]} for row in QUERIES]
    truth = [{**query, "duration": 90, "relevant_windows": [[1.5, 6], [9, 12.5]]} for query in queries]
    answers = [{**query, "pred_relevant_windows": [[1, 5, 0.9], [7, 9.5, -1e-9]]} for query in queries]
    spoilt = rng.choice(("truth", "submission"))
    for name, rows in (("truth", truth), ("submission", answers)):
        (folder / name).write_bytes(hostile_document(rng, rows) if name == spoilt else _lines(rows))


def _evaluate_moment_detr(folder: Path) -> None:
    annotations = Annotations.read(str(folder / "truth"))
    submission, findings = check_file(str(folder / "submission"), annotations)
    _write_metrics(submission, annotations.rows, findings, folder, miou=True, mean_ap=True)


def _write_features(rng: Random, folder: Path) -> None:
    os.mkfifo(folder / "pipe")  # what links and virtual datasets may name: reading it never ends
    write_h5(rng, folder / "in.h5")


def _read_features(folder: Path) -> None:
    file, usable = FeatureFile(folder / "in.h5"), 0
    with contextlib.suppress(InputError):
        file.made_by()
    refusals = []
    for read in (file.width, *(lambda key=key: file.read(key) for key in [*file.keys()[:20], "v0", "x/y", "\0"])):
        try:
            found = read()
            assert isinstance(found, int) or (
                found.dtype == np.float32 and found.ndim == 2 and np.isfinite(found).all()
            )
            usable += 1
        except InputError as err:
            refusals.append(err)
    if not usable:
        raise refusals[0]


@cache
def _preparation() -> object:
    from method_tvr.dataset.feature_store import Preparation

    return Preparation(max_rows=5, average=True, normalize=False)


def _packed(folder: Path) -> object:
    from method_tvr.dataset.feature_cache import packed_rows

    return packed_rows(FeatureFile(folder / "in.h5"), ROWS.shape[1], _preparation(), "float32")


@cache
def _good_cache() -> tempfile.TemporaryDirectory[str]:
    """A folder with a feature file and its cache."""
    folder = tempfile.TemporaryDirectory(prefix="fuzz-")
    with new_feature_file(Path(folder.name) / "in.h5") as features:
        for number in range(3):
            features.put(f"v{number}", ROWS[number:])
    _packed(Path(folder.name))
    return folder


def _write_cache(rng: Random, folder: Path) -> None:
    shutil.copytree(_good_cache().name, folder, dirs_exist_ok=True)
    (index,) = folder.glob("in.h5.cache/*/index.json")
    rows, text = index.with_name("rows.npy"), index.read_bytes().partition(b"\n")[2]
    if rng.random() < 0.7:  # an index whose checksum is right
        content = json.loads(text)
        free = {key: value for key, value in content.items() if key != "recipe" or rng.random() < 0.1}
        text = mutate_bytes(rng, text) if rng.random() < 0.3 else hostile_json(rng, free)
        if "recipe" not in free and text.startswith(b"{"):
            text = b'{"recipe":' + json.dumps(content["recipe"]).encode() + b"," + text[1:]
        index.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
    elif rng.random() < 0.5:
        index.write_bytes(mutate_bytes(rng, index.read_bytes()))
    if rng.random() < 0.5:
        header = rng.choice((b"descr': '|O'", b"shape': (-1, 4", b"fortran_order': True", b"shape': (99999999999, 4"))
        name = header[:5]
        content = rows.read_bytes()
        at = content.find(name)
        spoilt = (
            content[:at] + header + content[at + len(header) :] if rng.random() < 0.4 else mutate_bytes(rng, content)
        )
        rows.write_bytes(spoilt)


def _read_cache(folder: Path) -> None:
    packed = _packed(folder)
    for key, entry in packed.numbers.items():
        rows = packed.of(key)
        assert isinstance(key, str)
        assert rows.shape == (packed.lengths[entry], ROWS.shape[1])
        assert 1 <= len(rows) <= 5
        rows.sum()


@cache
def _good_options() -> dict[str, object]:
    from method_tvr.config import parse_train_options

    opt = parse_train_options(["--dset_name", "tvr", "--exp_id", "x"])
    return {**opt, "results_dir": "r", "feature_cache_dir": "/x"}


def _write_options(rng: Random, folder: Path) -> None:
    (folder / "opt.json").write_bytes(hostile_document(rng, _good_options()))


def _read_options(folder: Path) -> None:
    from method_tvr.config import parse_inference_options
    from method_tvr.options.saved import FILES, find_path

    opt = parse_inference_options(["--model_dir", str(folder)])
    assert (opt.feature_cache_dir, opt.results_root, opt.model_dir) == (None, "results", str(folder))
    name = f"inference_{opt.dset_name}_{opt.eval_split_name}_{opt.eval_id}_predictions_VR_nms_thd_0.5_metrics.json"
    assert os.path.dirname(os.path.normpath(folder / name)) == str(folder)
    assert len(os.fsencode(name)) < 230
    for option in FILES:
        os.path.isfile(find_path(opt[option]))


@cache
def _good_checkpoint() -> dict[str, Any]:
    import torch

    from tests.support.runs.small_models import SMALL, small_model

    content = {"model": dict(small_model().state_dict()), "model_cfg": asdict(SMALL), "epoch": 3}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:  # read once, so that torch has all its modules
        torch.save(content, Path(folder) / "model.ckpt")
        _read_checkpoint(Path(folder))
    return content


def _write_checkpoint(rng: Random, folder: Path) -> None:
    from tests.fuzz.hostile_checkpoint import write_checkpoint

    write_checkpoint(rng, folder / "model.ckpt", _good_checkpoint())


def _read_checkpoint(folder: Path) -> None:
    from method_tvr.training.checkpoint import load_checkpoint

    load_checkpoint(folder / "model.ckpt").build_model()


def _document(tree: object) -> Callable[[Random, Path], object]:
    return lambda rng, folder: (folder / "in").write_bytes(hostile_document(rng, tree))


def _in_module(name: str, function: str) -> Callable[..., object]:
    """A function of a module beside this one, which is imported when it is needed: most readers do without torch."""
    return lambda *args: getattr(import_module(f"tests.fuzz.{name}"), function)(*args)


def _of_module(name: str, **about: Any) -> Reader:
    return Reader(_in_module(name, "write"), _in_module(name, "read"), **about)


def _conversion(module: str, name: str, **about: Any) -> Reader:
    """Of public annotations or features to this project's files."""
    write, read = (_in_module(module, function) for function in ("write", "read"))
    return Reader(partial(write, name), partial(read, name), **about)


ANNOTATIONS = ("anet_cap", "charades_sta", "didemo", "tacos", "tvr")
FEATURE_FORMS = ("npy_folder", "npz_folder", "torch_files", "lmdb_folder", "bigfile_folder")


READERS = {
    "durations": Reader(_document(VIDEOS), _read_videos),
    "annotations": Reader(_document(QUERIES), _read_queries),
    "submission": Reader(_write_submission, _evaluate, BadInput),
    "ground_truth": Reader(_write_truth, _evaluate, BadInput),
    "moment_detr": Reader(_write_moment_detr, _evaluate_moment_detr, BadInput),
    "options": Reader(_write_options, _read_options),
    "features": Reader(_write_features, _read_features, memory=(320 * MIB, 300)),
    "feature_cache": Reader(_write_cache, _read_cache),
    "checkpoint": Reader(_write_checkpoint, _read_checkpoint),
    "published_model": _of_module("hostile_published"),
    "training_state": _of_module("hostile_training_state"),
    "encoded_corpus": _of_module("hostile_corpus"),
    "faiss_index": _of_module("hostile_index"),
    "subtitles": _of_module("hostile_subtitles"),
    "pictures": _of_module("hostile_pictures", memory=(GIB, 0)),
    **{f"convert_{name}": _conversion("hostile_annotations", name) for name in ANNOTATIONS},
    **{f"convert_{name}": _conversion("hostile_features", name, memory=(320 * MIB, 300)) for name in FEATURE_FORMS},
}


def quiet() -> contextlib.AbstractContextManager[object]:
    """Keep a reader's notes off the terminal, encoded as a terminal would have them."""
    stack = contextlib.ExitStack()
    stack.enter_context(contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8", "strict")))
    stack.enter_context(contextlib.redirect_stderr(io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")))
    return stack
