"""faiss, imported so that it multiplies as fast as the processor can."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch

from method_tvr.search.candidates import INSTALL
from utils.basic_utils import needed

CORE = "OPENBLAS_CORETYPE"
CORES = {"AVX512": "SkylakeX", "AVX2": "Haswell"}  # what a processor has: the name of one that has it


def import_faiss() -> Any:
    """The faiss package.

    The OpenBLAS in its wheels is of 2021. It takes a processor that is younger for one of 2004, and a product takes ten
    times as long as it could. So it is told of one that it knows, unless the user has told it.
    """
    core = CORES.get(torch.backends.cpu.get_cpu_capability())
    if core is None or "faiss" in sys.modules or CORE in os.environ:
        return needed("faiss", "--index faiss", INSTALL)
    os.environ[CORE] = core
    try:
        return needed("faiss", "--index faiss", INSTALL)
    finally:
        del os.environ[CORE]  # processes that are started later may have a newer OpenBLAS
