"""Candidates by Milvus: a collection for each modality, in a local file (Milvus Lite) or on a cluster.

Nothing here differs between the two but the address: who outgrows one machine gives another `--index_uri`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from method_tvr.search.candidates import CandidateIndex, CandidateSettings, clip_vectors, import_backend, n_cells
from method_tvr.search.corpus import Corpus
from method_tvr.search.records import NO_ENTRY
from utils.basic_utils import InputError, first_line, progress

ENTRY, VECTOR = "entry", "clip"
MOST_HITS = 16_384  # of one search, as Milvus allows
INSERTED_AT_A_TIME = 4096


class MilvusIndex(CandidateIndex):
    """Collections of clips, named one for each modality, of a Milvus client."""

    def __init__(self, client: Any, collections: Sequence[str], settings: CandidateSettings) -> None:
        self._client, self._collections, self.settings = client, collections, settings
        self.remedy = (
            f"--index milvus: collections {', '.join(collections)} are damaged: drop them, and they are filled"
        )

    def nearest_clips(
        self, modality: int, queries: np.ndarray, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        limit = min(self.settings.n_clips, MOST_HITS)
        chosen = {} if allowed is None else {"filter": f"{ENTRY} in {np.flatnonzero(allowed).tolist()}"}
        name = self._collections[modality]
        with _naming_faults(f"collection {name}"):
            found = self._client.search(
                name,
                data=list(queries),
                limit=limit,
                output_fields=[ENTRY],
                search_params={"metric_type": "IP", "params": {"nprobe": self.settings.n_probes}},
                **chosen,
            )
        entries = np.full((len(queries), limit), NO_ENTRY, dtype=np.int64)
        scores = np.full((len(queries), limit), -np.inf, dtype=np.float32)
        for row, hits in enumerate(found):
            entries[row, : len(hits)] = [hit["entity"][ENTRY] for hit in hits]
            scores[row, : len(hits)] = [hit["distance"] for hit in hits]
        return entries, scores


def import_milvus() -> Any:
    """The pymilvus package, silenced: of what users can do something about, an error speaks."""
    pymilvus = import_backend("milvus", "pymilvus")
    for name in ("pymilvus", "milvus_lite", "grpc"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus


@contextmanager
def _naming_faults(where: str) -> Iterator[None]:
    """What Milvus complains of, as what the user can mend."""
    pymilvus = import_milvus()
    try:
        yield
    except pymilvus.MilvusException as err:
        raise InputError(
            f"--index milvus: {where}: {first_line(err)}: is there room, and is --index_uri the address of a running "
            "Milvus, or a local file that ends in .db?"
        ) from err


def open_milvus_index(
    uri: str, token: str | None, seal: str, corpus: Corpus, n_modalities: int, settings: CandidateSettings
) -> MilvusIndex:
    """The index at an address, which is built first where it is not there or was not finished.

    Args:
        uri, token: a local file, or the address of a cluster and what that asks for.
        seal: says which corpus it is; part of the collections' names, so that several corpora may share a Milvus.

    Raises:
        InputError: pymilvus is missing, or Milvus cannot be reached or complains.
    """
    pymilvus = import_milvus()
    if "://" not in uri:
        Path(uri).parent.mkdir(parents=True, exist_ok=True)
    with _naming_faults(uri):
        client = pymilvus.MilvusClient(uri, token=token or "")
        names = [f"clips_{seal[:32]}_{modality}" for modality in range(n_modalities)]
        for modality, name in enumerate(names):
            if not _is_whole(client, name, int(corpus.n_clips.sum())):
                _fill(client, name, corpus, modality)
            client.load_collection(name)
    return MilvusIndex(client, names, settings)


def _is_whole(client: Any, name: str, n_clips: int) -> bool:
    return bool(client.has_collection(name)) and int(client.get_collection_stats(name)["row_count"]) == n_clips


def _fill(client: Any, name: str, corpus: Corpus, modality: int) -> None:
    """Put the clips of a corpus into a collection, in the place of what there is of it."""
    data_type, n_clips = import_milvus().DataType, int(corpus.n_clips.sum())
    if client.has_collection(name):
        client.drop_collection(name)
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", data_type.INT64, is_primary=True)
    schema.add_field(ENTRY, data_type.INT64)
    schema.add_field(VECTOR, data_type.FLOAT_VECTOR, dim=int(corpus.rows_of(0).shape[-1]))
    index = client.prepare_index_params()
    index.add_index(VECTOR, index_type="IVF_FLAT", metric_type="IP", params={"nlist": n_cells(n_clips)})
    client.create_collection(name, schema=schema, index_params=index)
    number = 0
    for entries, vectors in progress(clip_vectors(corpus, modality), f"indexing modality {modality}"):
        for first in range(0, len(entries), INSERTED_AT_A_TIME):
            some = slice(first, first + INSERTED_AT_A_TIME)
            rows = [
                {"id": number + i, ENTRY: entry, VECTOR: vector}
                for i, (entry, vector) in enumerate(zip(entries[some].tolist(), vectors[some], strict=True))
            ]
            client.insert(name, rows)
            number += len(rows)
    client.flush(name)
