"""Reading the compressed figures under tests/golden/."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import numpy as np
import orjson

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def read_bytes(name: str) -> bytes:
    """The bytes of tests/golden/`name`.xz, decompressed."""
    return lzma.decompress((GOLDEN / f"{name}.xz").read_bytes())


def read_text(name: str) -> str:
    """The text of tests/golden/`name`.xz."""
    return read_bytes(name).decode("utf-8")


def load_json(name: str) -> Any:
    """The JSON document in tests/golden/`name`.xz, e.g. `load_json("eval/metrics.json")`."""
    return orjson.loads(read_bytes(name))


def load_jsonl(name: str) -> list[dict[str, Any]]:
    """The rows in tests/golden/`name`.xz, one JSON object a line."""
    return [orjson.loads(line) for line in read_bytes(name).splitlines()]


def load_npz(name: str) -> dict[str, np.ndarray]:
    """The arrays of tests/golden/`name`, e.g. `load_npz("model_io.npz")`."""
    with np.load(GOLDEN / name) as arrays:
        return dict(arrays)


def unpack(name: str, target: Path) -> Path:
    """Write tests/golden/`name`.xz, decompressed, to the file `target` and return it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(read_bytes(name))
    return target
