"""Encodes the videos of a split once and keeps them on disk, for corpora that are searched often or exceed memory.

python method_tvr/ask/encode_corpus.py --model_dir MODEL_DIR --out CORPUS_DIR [--eval_split_name SPLIT] [any option]

The videos are those of the split in --video_duration_idx_path. Those that the corpus has are left alone, so that the
same command goes on after a run that was stopped, and another split or list adds its videos. Searched with
`inference.sh MODEL_DIR SPLIT --encoded_corpus CORPUS_DIR`, where --help of inference.py explains all other options.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

if not all(map(find_spec, ("method_tvr", "numpy", "torch", "easydict", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from method_tvr.command_lines.encode_corpus import own_options
from utils.basic_utils import parse_first

if __name__ == "__main__":
    parse_first(own_options, __doc__)

from method_tvr.config import parse_inference_options
from method_tvr.dataset.annotations import Entry
from method_tvr.dataset.loading import BatchLoader
from method_tvr.dataset.split_facts import tell
from method_tvr.options.saved import find_path
from method_tvr.search.corpus_store import CorpusStore
from method_tvr.search.corpus_writer import adding_to
from method_tvr.search.encoding import encode_videos
from method_tvr.search.windows import joined
from method_tvr.start_end_dataset import StartEndEvalDataset
from method_tvr.trained.outdated_encodings import parts_to_renew, refuse_outdated
from method_tvr.trained.trained_model import TrainedModel, open_model
from utils.basic_utils import InputError, command_line, progress
from utils.model_utils import named_when_out_of_memory

STORED_DTYPES = {"fp32": "float32", "fp16": "float16"}


def add_videos(trained: TrainedModel, out: str, renew: bool = False, told: bool = False) -> None:
    """Add the videos that a model's options list, as far as they are missing, to the corpus in `out`.

    What is outdated there, because the model or the videos' features have changed since, is encoded again to `renew`,
    and refused otherwise. What is wrong with those that are added is said, unless it is `told` by who calls.
    An `InputError` if the folder holds something else, or features are missing or do not fit.
    """
    inputs, encoding, device = trained.inputs, trained.encoding, trained.device
    if encoding.retrieval_dtype not in STORED_DTYPES:
        raise InputError(f"--retrieval_dtype {encoding.retrieval_dtype}: encoded videos are kept in fp32 or fp16")
    videos = inputs.listed_videos()

    def outdated(store: CorpusStore) -> list[Path]:
        return parts_to_renew(store, videos, inputs.context_paths)

    recipe = trained.recipe(STORED_DTYPES[encoding.retrieval_dtype])
    with adding_to(out, recipe, outdated=outdated if renew else None) as writer:
        writer.store.check_durations(videos)
        if not renew:
            refuse_outdated(writer.store, videos, inputs.context_paths)
        new = [video for video in videos if video.vid_name not in writer.store.where]
        if there := len(videos) - len(new):
            print(f"{there} of {len(videos)} videos are in {out} already: encoding the other {len(new)}")
        if new:
            windows = writer.store.recipe.windows
            with trained.open_features(with_queries=False) as features:
                writer.stamps = features.context_stamps
                features.require([], (video.vid_name for video in new), find_path(inputs.video_duration_idx_path))
                found = trained.facts(new, features)
                if not told:
                    tell(found)
                names = [video.vid_name for video in new]
                entries = windows.cut(new, features.clip_counts(names)) if windows else list(map(Entry, new))
                dataset = StartEndEvalDataset([], entries, features, "context")
                batches = BatchLoader(dataset, encoding.eval_context_bsz, encoding.trim_padding)
                encoded = encode_videos(trained.model, batches, device, encoding.trim_padding)
                for video, n_clips, rows in progress(joined(entries, encoded), "encoding videos", len(new)):
                    writer.add(video, n_clips, rows, features.digests(video.vid_name))
    print(f"{out}: {len(writer.store) + len(new)} videos, {len(new)} of them added now")


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    own, words = own_options(__doc__, argv)
    # each video is read once: packing them all into a cache first, as inference does by default, would gain nothing
    opt = parse_inference_options(words, feature_cache="disk")
    with named_when_out_of_memory(opt, ("eval_context_bsz", "feature_cache", "trim_padding")):
        add_videos(open_model(opt), own.out)


if __name__ == "__main__":
    main()
