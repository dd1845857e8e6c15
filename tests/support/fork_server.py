"""Processes forked from a server that has imported everything, so that a start takes no time."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

PRELOADED = [
    "faiss",
    "pytest",
    "method_tvr.train",
    "method_tvr.web.app",  # if what it needs is installed
    "tests.support.runs.tiny_corpus",
    "tests.fuzz.hostile_annotations",
    "tests.fuzz.hostile_corpus",
    "tests.fuzz.hostile_features",
    "tests.fuzz.hostile_index",
    "tests.fuzz.hostile_pictures",
    "tests.fuzz.hostile_published",
    "tests.fuzz.hostile_subtitles",
    "tests.fuzz.hostile_training_state",
]


def fork_server() -> ForkServerContext:
    """The one server of this process, which starts with the first process that it is asked for."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
