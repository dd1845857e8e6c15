"""A trained model opened for use: what is in its results folder, read once and checked against options and features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from easydict import EasyDict

from method_tvr.dataset.annotations import Entry, Query, Video
from method_tvr.dataset.clip_times import WINDOWS, ClipTimes
from method_tvr.dataset.feature_records import check_clip_length, check_trained_on, note_not_compared
from method_tvr.dataset.feature_store import TEF_SIZE, FeatureStore
from method_tvr.dataset.loading import BatchLoader
from method_tvr.dataset.split_facts import Fact, Reach, Split, check_durations, facts
from method_tvr.inputs import Inputs
from method_tvr.model import ReLoCLNet
from method_tvr.options.rules import ensure_dataset, settings_of
from method_tvr.options.saved import find_path
from method_tvr.search.answering import VideoSource
from method_tvr.search.corpus import Corpus
from method_tvr.search.corpus_store import CorpusRecipe, CorpusStore
from method_tvr.search.encoding import encode_corpus
from method_tvr.search.records import SearchSettings
from method_tvr.search.stored_corpus import open_corpus
from method_tvr.search.windows import Windows
from method_tvr.start_end_dataset import StartEndEvalDataset
from method_tvr.trained.outdated_encodings import refuse_outdated
from method_tvr.trained.published_model import load_model
from method_tvr.training.checkpoint import Checkpoint
from utils.basic_utils import InputError, StrPath, progress
from utils.model_utils import choose_device
from utils.ranks import ALONE, Ranks

RETRIEVAL_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def open_model(opt: EasyDict, ranks: Ranks = ALONE, device: torch.device | None = None) -> TrainedModel:
    """Open the model in the folder `opt.model_dir`, and generate its dataset if it is one that can be.

    Args:
        opt: from `parse_inference_options`.
        ranks: the processes that use it together.
        device: where this one computes, by default where the options say.

    Raises:
        InputError: it cannot be read, sees something else than the options' `ctx_mode`, takes less than they ask, or
            finds no spans as long as they ask in windows of long videos.
    """
    checkpoint, inputs = load_model(Path(opt.model_dir)), settings_of(Inputs, opt)
    checkpoint.note_if_unknown()
    trained_with = checkpoint.config.ctx_mode
    if set(trained_with.split("_")) != set(inputs.ctx_mode.split("_")):
        raise InputError(
            f"--ctx_mode {inputs.ctx_mode}: the model in {opt.model_dir} was trained with {trained_with}: give that, "
            "or leave the option out"
        )
    if ranks.is_main:
        ensure_dataset(opt)
    ranks.barrier()
    for name in ("max_ctx_l", "max_desc_l"):  # the model has positions for so many
        most = getattr(checkpoint.config, name)
        if opt[name] > most:
            raise InputError(
                f"--{name} {opt[name]}: the model in {opt.model_dir} was trained with {most}: give at most that"
            )
    windows = None
    if opt.long_videos == WINDOWS:
        windows = Windows.for_spans(opt.max_ctx_l, opt.max_pred_l, checkpoint.config.conv_kernel_size)
    where = choose_device(opt.device, opt.tf32) if device is None else device
    reach = Reach.of(opt, windows=windows is not None)
    return TrainedModel(Path(opt.model_dir), checkpoint, where, inputs, settings_of(Encoding, opt), windows, reach)


@dataclass(frozen=True)
class Encoding:
    """How videos are encoded: the options of these names."""

    eval_context_bsz: int
    max_ctx_l: int
    trim_padding: bool
    retrieval_dtype: str


@dataclass(frozen=True)
class TrainedModel:
    """A model and how it is used; see `open_model`."""

    model_dir: Path  # its results folder
    checkpoint: Checkpoint  # its weights, and what is known of its training
    device: torch.device  # where it computes
    inputs: Inputs  # what it reads
    encoding: Encoding  # how it encodes videos
    windows: Windows | None  # how long videos are cut; None averages them down
    reach: Reach  # the spans that it can predict

    @cached_property
    def model(self) -> ReLoCLNet:
        """The model with its weights, on its device and in evaluation mode."""
        return self.checkpoint.build_model(self.device)

    @contextmanager
    def open_features(self, with_queries: bool = True, with_context: bool = True) -> Iterator[FeatureStore]:
        """The features that the options name, which must be such as the model was trained on; False leaves some out.

        An `InputError` names the feature file or the option.
        """
        config, model_dir = self.checkpoint.config, str(self.model_dir)
        with self.inputs.open_features(self.device, with_queries, with_context) as features:
            features.note_unknown_files()
            tef = TEF_SIZE if features.use_tef else 0
            expected = {"query": config.query_input_size, **{m: n - tef for m, n in config.input_sizes.items()}}
            for kind, size in features.sizes.items():
                if size != expected[kind]:
                    raise InputError(
                        f"{features.paths[kind]}: features are {size} wide, but the model in {model_dir} was "
                        f"trained on {expected[kind]}: give the features it was trained on"
                    )
            check_trained_on(self.checkpoint.features, features, model_dir)
            note_not_compared(self.checkpoint.features, self.checkpoint.has_record, features, model_dir)
            check_clip_length(features, self.inputs.clip_times)
            yield features

    def source(self, features: FeatureStore) -> VideoSource:
        """Videos that are encoded when they are first searched."""
        return encoded_now(self.model, features, self.encoding, self.device, self.windows)

    def facts(
        self, videos: Sequence[Video], source: FeatureStore | CorpusStore, queries: Sequence[Query] = ()
    ) -> list[Fact]:
        """What is wrong with the videos that are searched, and with queries about them, by features or encodings.

        An `InputError` where numbers of clips do not fit durations.
        """
        name, counts = self.inputs.eval_split_name, source.clip_counts([video.vid_name for video in videos])
        if isinstance(source, FeatureStore):
            return self.inputs.facts([Split.of(name, videos, counts, queries)], source, self.reach)
        counts = [self.reach.before_averaging(n, video.duration) for n, video in zip(counts, videos, strict=True)]
        split, length = Split.of(name, videos, counts, queries), self.inputs.clip_length
        odd = check_durations(split, None if isinstance(length, str) else length, False, source.folder.name)
        return ([] if odd is None else [odd]) + facts([split], self.reach)

    def recipe(self, dtype: str) -> CorpusRecipe:
        """What the encodings of videos depend on, kept in a number type."""
        options = {**vars(self.inputs), **vars(self.encoding)}
        return CorpusRecipe.of(self.checkpoint.model_digest(), self.checkpoint.config, options, self.windows, dtype)

    def open_store(self, folder: StrPath) -> CorpusStore:
        """The encoded corpus in a folder, which must be what encoding with this model and its options would give.

        An `InputError` if it is another model's, was made with other options, or is damaged.
        """
        store = CorpusStore(find_path(str(folder)))
        store.recipe.check_same(self.recipe(store.recipe.dtype), store.folder)
        return store

    def require_encoded(self, store: CorpusStore, videos: Sequence[Video]) -> None:
        """Refuse an encoded corpus that lacks some of these videos, or has them as they were, not as they are."""
        store.require(videos)
        refuse_outdated(store, videos, self.inputs.context_paths)


def encoded_now(
    model: ReLoCLNet, features: FeatureStore, encoding: Encoding, device: torch.device, windows: Windows | None = None
) -> VideoSource:
    """Videos that a model in evaluation mode encodes when they are first searched; None averages long ones down."""
    trim_padding, dtype = encoding.trim_padding, RETRIEVAL_DTYPES[encoding.retrieval_dtype]

    def corpus_of(entries: Sequence[Entry]) -> Corpus:
        dataset = StartEndEvalDataset([], entries, features, "context")
        batches = progress(BatchLoader(dataset, encoding.eval_context_bsz, trim_padding), "encoding videos")
        return encode_corpus(model, batches, device, trim_padding, dtype)

    return VideoSource(encoding.max_ctx_l, windows, features.clip_counts, corpus_of)


def encoded_before(store: CorpusStore, device: torch.device) -> VideoSource:
    """Videos of an encoded corpus on disk, which are compared on a device."""

    def corpus_of(entries: Sequence[Entry]) -> Corpus:
        return open_corpus(store, list(dict.fromkeys(entry.vid_name for entry in entries)), device)

    return VideoSource(store.recipe.max_ctx_l, store.recipe.windows, store.clip_counts, corpus_of)


def search_settings(opt: EasyDict) -> SearchSettings:
    """What the options say about the search."""
    min_pred_l, max_pred_l = ClipTimes(opt.clip_length, opt.label_rule).band(opt.min_pred_l, opt.max_pred_l)
    return SearchSettings(
        q2c_alpha=opt.q2c_alpha,
        max_vcmr_video=opt.max_vcmr_video,
        max_moments=opt.max_before_nms,
        min_pred_l=min_pred_l,
        max_pred_l=max_pred_l,
        query_block=opt.retrieval_bsz,
    )
