"""Candidates by Milvus: a collection for each modality, in a local file (Milvus Lite), on a server or on a cluster.

Nothing here differs between them but the address: who outgrows one machine gives another `--index_uri`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from method_tvr.options.values import MILVUS_KINDS
from method_tvr.search.candidates import CandidateIndex, CandidateSettings
from method_tvr.search.corpus import Corpus
from method_tvr.search.index.milvus_build import ENTRY, build, drop_abandoned, load
from method_tvr.search.index.milvus_client import Milvus
from method_tvr.search.records import NO_ENTRY
from utils.basic_utils import InputError

MOST_HITS = 16_384  # of one search, as Milvus allows
HITS_AT_A_TIME = 1 << 17  # of the queries of one search: seconds for a node of two cores, which has other work as well
LONGEST_LIST = 32_768  # of nearest clips while a graph is followed, as Milvus allows


class MilvusIndex(CandidateIndex):
    """Collections of clips, named one for each modality, of a Milvus."""

    def __init__(self, milvus: Milvus, collections: Sequence[str], kind: str, settings: CandidateSettings) -> None:
        self._milvus, self._collections, self._kind, self.settings = milvus, collections, kind, settings
        self.remedy = (
            f"--index milvus: collections {', '.join(collections)} are damaged: drop them, and they are filled"
        )

    def nearest_clips(
        self, modality: int, queries: np.ndarray, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        limit = min(self.settings.n_clips, MOST_HITS)
        chosen: dict[str, Any] = {} if allowed is None else {"filter": f"{ENTRY} in {np.flatnonzero(allowed).tolist()}"}
        entries = np.full((len(queries), limit), NO_ENTRY, dtype=np.int64)
        scores = np.full((len(queries), limit), -np.inf, dtype=np.float32)
        at_a_time = HITS_AT_A_TIME // limit
        for first in range(0, len(queries), at_a_time):
            found = self._milvus.ask(
                "search",
                self._collections[modality],
                data=list(queries[first : first + at_a_time]),
                limit=limit,
                output_fields=[ENTRY],
                search_params={"metric_type": "IP", "params": search_params(self._kind, limit, self.settings.n_probes)},
                **chosen,
            )
            for row, hits in enumerate(found, start=first):
                entries[row, : len(hits)] = [hit["entity"][ENTRY] for hit in hits]
                scores[row, : len(hits)] = [hit["distance"] for hit in hits]
        return entries, scores


def search_params(kind: str, limit: int, n_probes: int) -> dict[str, Any]:
    """How far a search for `limit` clips looks, in the words of Milvus: into cells, or along a graph.

    The list of nearest clips by which a graph is followed is `n_probes` longer than what is asked for, and at most 10
    times as long.
    """
    if kind in ("ivf", "ivfsq"):
        return {"nprobe": n_probes}
    name = {"hnsw": "ef", "diskann": "search_list"}[kind]
    return {name: min(limit + n_probes, 10 * limit, LONGEST_LIST)}


def open_milvus_index(
    uri: str,
    token: str | None,
    kind: str,
    seal: str,
    corpus: Corpus,
    n_modalities: int,
    settings: CandidateSettings,
) -> MilvusIndex:
    """The index at an address, which is built first where it is not there or was not finished.

    Args:
        uri, token: a local file, or the address of a server and what that asks for.
        kind: of `MILVUS_KINDS`.
        seal: says which corpus it is; part of the collections' names, so that several corpora may share a Milvus.

    Raises:
        InputError: pymilvus is missing, Milvus cannot be reached, complains or is away for too long, or has no such
            kind.
    """
    milvus = Milvus(uri, token)
    if kind == "diskann" and "lite" in milvus.ask("get_server_version"):
        others = ", ".join(other for other in MILVUS_KINDS if other != kind)
        raise InputError(
            f"--index_kind {kind}: neither a local file nor the server of pip install milvus has this kind: give the "
            f"--index_uri of another server, or one of {others}"
        )
    names = [f"clips_{seal[:32]}_{kind}_{modality}" for modality in range(n_modalities)]
    for modality, name in enumerate(names):
        drop_abandoned(milvus, name)
        if not _is_whole(milvus, name, int(corpus.n_clips.sum())):
            build(milvus, name, kind, corpus, modality)
        load(milvus, name, f"loading modality {modality}")
    return MilvusIndex(milvus, names, kind, settings)


def _is_whole(milvus: Milvus, name: str, n_clips: int) -> bool:
    """Whether a collection is there with all clips; one that has lost some is dropped.

    A server counts what is deleted later: rows may be more than clips, where some were sent twice.
    """
    if not milvus.ask("has_collection", name):
        return False
    if int(milvus.ask("get_collection_stats", name)["row_count"]) >= n_clips:
        return True
    milvus.ask("drop_collection", name)
    return False
