"""Reading the compressed figures under tests/golden/."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parent / "golden"


def read_text(name: str) -> str:
    """The text of tests/golden/`name`.xz."""
    return lzma.decompress((GOLDEN / f"{name}.xz").read_bytes()).decode("utf-8")


def load_json(name: str) -> Any:
    """The JSON document in tests/golden/`name`.xz, e.g. `load_json("eval/metrics.json")`."""
    return json.loads(read_text(name))


def load_jsonl(name: str) -> list[dict[str, Any]]:
    """The rows in tests/golden/`name`.xz, one JSON object a line."""
    return [json.loads(line) for line in read_text(name).splitlines()]


def unpack(name: str, target: Path) -> Path:
    """Write tests/golden/`name`.xz, decompressed, to the file `target` and return it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(read_text(name), encoding="utf-8")
    return target
