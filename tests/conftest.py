"""What all tests have in common: what they say about themselves, their threads, and which of them are slow."""

import gc
import os
import signal

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: the reference's figures come from one thread, and on
# tensors this small a second one only gets in the way. Processes that tests start inherit it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # for them, too: a hundred start, and need not compile anew

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # which a shell passes on to what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import settings

from tests.support.slow import is_slow
from tests.support.versions import version_lines

settings.register_profile("tests", deadline=None, max_examples=25)  # a busy machine is no fault
settings.load_profile("tests")

os.fsync = lambda fd: None  # nothing here cuts the power, and waiting for the disk takes seconds


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: starts processes or trains (set by tests/support/slow.py)")


def pytest_report_header() -> list[str]:
    """The versions that the tests run on."""
    return version_lines()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the slow tests; where several processes share the files, those with slow tests come first."""
    slow = [item for item in items if isinstance(item, pytest.Function) and is_slow(item)]
    for item in slow:
        item.add_marker("slow")
    if hasattr(config, "workerinput"):
        long_files = {item.path for item in slow}
        items.sort(key=lambda item: item.path not in long_files)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Leave what has been imported out of each collection of garbage: it is a million objects, and stays."""
    gc.freeze()
