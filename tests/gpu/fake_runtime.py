"""torch's own CUDA code where there is no GPU: a CUDA runtime whose kernels do nothing and are counted.

`build` compiles fake_runtime.cpp for the torch that is installed (a CUDA 13 build; g++ and readelf are needed), and
`run` runs Python code on it in a process of its own. Counts are the real thing's; results are not.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("fake_runtime.cpp")
# of fake_runtime.cpp's `Counters`, in its order
COUNTERS = (
    "launches", "blas", "memsets", "h2d", "h2d_bytes", "pageable", "pageable_bytes", "d2h", "d2d", "waits", "conv",
    "graphs", "captured",
)  # fmt: skip
OPERATIONS = ("launches", "blas", "memsets", "d2d", "conv", "graphs")  # each of them is a call of the host
# torch's threads are not waited for: it sometimes aborts when it takes down a device of which it has asked everything
LEAVE = "\nimport os, sys\nsys.stdout.flush()\nos._exit(0)\n"
TORCH_LIBRARIES = ("libtorch_cuda.so", "libc10_cuda.so", "libtorch_python.so")
DRIVER_SPECIAL = {
    "cuDevicePrimaryCtxGetState": "(int, unsigned* f, int* a) { if (f) *f = 0; *a = 1; return 0; }",
    "cuCtxGetCurrent": "(void** p) { *p = (void*)16; return 0; }",
}


def missing() -> str | None:
    """What keeps the fake runtime from being built here, None if nothing does."""
    if not (torch.version.cuda or "").startswith("13."):
        return f"torch {torch.__version__} is not built for CUDA 13"
    absent = [program for program in ("g++", "readelf") if shutil.which(program) is None]
    return f"{' and '.join(absent)} not installed" if absent else None


def _undefined(library: Path, pattern: str) -> set[str]:
    """Functions that a library takes from others, as far as their names match."""
    command = ["readelf", "-W", "--dyn-syms", str(library)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = (line.split()[7].split("@")[0] for line in listed.splitlines() if " UND " in line and len(line.split()) > 7)
    return {name for name in names if re.match(pattern, name)}


def _structs() -> str:
    """CUDA's structures that torch reads, from the headers that come with it."""
    header = next(Path(torch.__file__).parents[1].glob("nvidia/cu13/include/driver_types.h"))
    text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
    found = []
    for name in ("cudaDeviceProp", "cudaFuncAttributes"):
        struct = re.search(rf"struct __device_builtin__ {name}\s*\{{.*?\n\}};", text, re.DOTALL)
        assert struct is not None, f"{header}: no struct {name}"
        found.append(struct[0].replace("__device_builtin__ ", ""))
    return "\n".join(["typedef struct { char b[16]; } cudaUUID_t;", *found])


def build(folder: Path) -> dict[str, str]:
    """Compile the fake runtime into a folder; returns the environment of processes that are to run on it."""
    lib = Path(torch.__file__).parent / "lib"
    (folder / "structs.h").write_text(_structs())
    needed = set().union(*(_undefined(lib / name, r"(__)?cuda|cublas|cudnn|nccl") for name in TORCH_LIBRARIES))
    ours = set(re.findall(r"^EXPORT .*?\b(\w+)\(", SOURCE.read_text(), re.MULTILINE))
    (folder / "rest.inc").write_text(
        "".join(f"EXPORT int {name}() {{ return 0; }}\n" for name in sorted(needed - ours))
    )
    driver = (
        f'extern "C" int {name}{DRIVER_SPECIAL.get(name, "() { return 0; }")}\n'
        for name in sorted(_undefined(lib / "libcaffe2_nvrtc.so", "cu[A-Z]"))
    )
    (folder / "driver.cpp").write_text("".join(driver))
    for source, target in ((SOURCE, "libfakecuda.so"), (folder / "driver.cpp", "libcuda.so.1")):
        command = ["g++", "-O1", "-w", "-shared", "-fPIC", f"-I{folder}", "-o", str(folder / target), str(source)]
        subprocess.run(command, check=True)
    return {
        **os.environ,
        "LD_PRELOAD": str(folder / "libfakecuda.so"),
        "LD_LIBRARY_PATH": str(folder),
        "FAKE_CUDA": str(folder / "libfakecuda.so"),
        "PYTHONPATH": str(ROOT),
    }


def run(environment: dict[str, str], code: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process that has the fake GPU."""
    # without a compiler's help, unless a test asks for it: kernels that are compiled at run time cannot be counted
    environment = {**environment, "TORCH_DISABLE_NATIVE_JIT": "1", **more}
    command = [sys.executable, "-c", textwrap.dedent(code) + LEAVE]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)


class Counter:
    """What has been asked of the fake GPU in this process, since `reset`."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ["FAKE_CUDA"])
        self._library.fake_counters.restype = ctypes.POINTER(ctypes.c_long)
        self.reset()

    def reset(self) -> None:
        self._library.fake_reset()

    def read(self, names: Iterable[str] = COUNTERS) -> dict[str, int]:
        values = self._library.fake_counters()
        return {name: values[COUNTERS.index(name)] for name in names}

    def operations(self) -> int:
        """Calls by which the host gave the device something to do."""
        return sum(self.read(OPERATIONS).values())
