"""Which tests are slow: those that start processes or a browser, train or load a model, build an index, or draw whole
reports.

A test is found out by what it names, as are its fixtures and their helpers, so that a new one needs no mark. Some parts
are slow as wholes: each path through a step on a stand-in for a GPU, hostile input by the thousand, benchmarks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest

TESTS = str(Path(__file__).resolve().parents[1])
WHOLE = ("gpu/", "fuzz/", "test_benchmarks.py")  # parts of tests/
SLOW = {  # module: what of it takes seconds
    "subprocess": {"run", "Popen"},
    "tests.support.processes": {"start_ranks"},
    "tests.support.browser": {"browser_or_skip"},
    "method_tvr.train": {"Trainer", "main"},
    "method_tvr.report.report": {"write_report"},
    "method_tvr.search.index.faiss_index": {"open_faiss_index"},
    "method_tvr.search.index.milvus_index": {"open_milvus_index"},
    "utils.extract_features": {"main"},
    "utils.pretrained.joint_model": {"load_joint_model"},
    "utils.text_feature.text_encoder": {"TextEncoder"},
    "utils.video_feature.image_models": {"load_image_model"},
    "utils.video_feature.i3d": {"I3D"},
    "utils.video_feature.pipeline": {"extract_each"},
}


def is_slow(item: pytest.Function) -> bool:
    """Whether a test is in a slow part, or it, a fixture that it uses, or a helper of these names something slow."""
    if item.path.relative_to(TESTS).as_posix().startswith(WHOLE):
        return True
    fixtures = item._fixtureinfo.name2fixturedefs.values()
    return any(map(_names_slow, [item.function, *(definition.func for found in fixtures for definition in found)]))


@functools.cache  # most tests share their function, their fixtures or both with others
def _names_slow(function: object) -> bool:
    return any(
        getattr(thing, "__name__", "") in SLOW.get(getattr(thing, "__module__", None) or "", ())
        for thing in _all_named(function)
    )


def _all_named(function: object) -> Iterator[object]:
    """What a function names of what its module knows, and so on through the functions and classes of tests/."""
    seen, left = set(), [function]
    while left:
        thing = left.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        yield thing
        if isinstance(thing, type):
            left += vars(thing).values()
        elif isinstance(thing, property):
            left.append(thing.fget)
        function = getattr(thing, "__wrapped__", thing)  # in a context manager or hypothesis' wrapper
        if isinstance(function, FunctionType) and function.__code__.co_filename.startswith(TESTS):
            names = set(_names(function.__code__))
            known = [function.__globals__[name] for name in names & function.__globals__.keys()]
            modules = [vars(thing) for thing in known if isinstance(thing, ModuleType)]
            left += known + [members[name] for members in modules for name in names & members.keys()]


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
