"""A disk that gets full."""

import resource
from contextlib import contextmanager


@contextmanager
def largest_file(size: int):
    """Let no file grow beyond `size` bytes, which the system refuses as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
