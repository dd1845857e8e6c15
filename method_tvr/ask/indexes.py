"""The search index that options name, opened or built over the videos of an encoded corpus."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from easydict import EasyDict

from method_tvr.dataset.annotations import Video
from method_tvr.options.values import CERTIFIED, FAISS, USUAL_KIND
from method_tvr.search.candidates import CandidateSettings, SearchIndex
from method_tvr.search.corpus import Corpus
from method_tvr.search.corpus_store import CorpusStore, recipe_seal
from method_tvr.search.index.certified.certified_files import open_certified_index
from method_tvr.search.stored_corpus import StoredCorpus
from utils.basic_utils import InputError


def corpus_seal(store: CorpusStore, videos: Sequence[Video]) -> str:
    """What tells a list of encoded videos from any other: a digest of rows, names and order."""
    digest = hashlib.sha256(recipe_seal(store.recipe).encode())
    for part in store.parts:
        digest.update("".join(said["sha256"] for said in part.files.values()).encode())
        if part.features:  # videos that changed places may leave the same rows, in order of length
            digest.update("\0".join(part.names).encode())
    for video in videos:
        digest.update(video.vid_name.encode() + b"\0")
    return digest.hexdigest()


def _beside(store: CorpusStore, suffix: str) -> Path:
    """What belongs to an encoded corpus lies beside it, under its name with a suffix, whatever folder is current."""
    folder = Path(os.path.abspath(store.folder))
    return folder.with_name(folder.name + suffix)


def open_index(
    opt: EasyDict,
    store: CorpusStore,
    videos: Sequence[Video],
    corpus: Corpus,
    sample_queries: Callable[[], np.ndarray],
) -> SearchIndex:
    """The index that options name, over the videos of a corpus; built first where it is not there.

    `sample_queries` as of `open_certified_index`.

    An `InputError` if a package is missing, or the index cannot be built, read or reached.
    """
    if opt.index == CERTIFIED:
        if not isinstance(corpus, StoredCorpus) or corpus.device.type != "cpu":
            raise InputError(f"--index {CERTIFIED}: runs on the CPU: give --device -1")
        return open_certified_index(_beside(store, "_certified"), store, corpus, sample_queries)
    if opt.prove and corpus.device.type != "cpu":
        raise InputError("--prove: runs on the CPU: give --device -1")
    settings = CandidateSettings(opt.candidate_clips, opt.candidate_videos, opt.probes, opt.prove)
    seal, n_modalities = corpus_seal(store, videos), len(store.recipe.modalities)
    kind = opt.index_kind or USUAL_KIND[opt.index]
    if opt.index == FAISS:
        from method_tvr.search.index.faiss_index import FaissRecipe, open_faiss_index  # here, because few need it

        recipe = FaissRecipe(kind, seal, opt.pq_bytes)
        folder = _beside(store, f"_{kind}_index")
        return open_faiss_index(folder, recipe, corpus, n_modalities, settings, opt.trust_index)
    from method_tvr.search.index.milvus_index import open_milvus_index

    uri = opt.index_uri or str(_beside(store, "_milvus.db"))
    return open_milvus_index(uri, opt.index_token, kind, seal, corpus, n_modalities, settings)
