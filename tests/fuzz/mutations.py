"""From good inputs to hostile ones: bytes that were hit on the way, and JSON that was written to do harm."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

INTERESTING = (0x00, 0x01, 0x7F, 0x80, 0xFF, ord("["), ord("{"), ord('"'), ord("\n"), ord("\r"), ord("."))

RAW_VALUES = (  # JSON texts, some of which no JSON library would write
    "null", "true", "0", "-1", "1e308", "1e999", "NaN", "-Infinity", "9007199254740993", "9223372036854775807",
    "18446744073709551615", "18446744073709551616", "1" + "0" * 400, "1" * 5000, '""', '"\\u0000"', '"\\ud800"',
    '"../../x"', '"/etc/passwd"', '"/dev/zero"', '"__class__"', '"' + "x" * 5000 + '"', "[]", "{}", "[[[1]]]",
    "[" * 60 + "]" * 60, "[" * 990 + "]" * 990, "[" * 1020 + "]" * 1020, "[" * 20000, '{"a":' * 900 + "1" + "}" * 900,
    '{"a": 1, "a": 2}', "[1, 2, 3, 4]", "[0.5, 1e39]", "1.5", "-0.0", "",
)  # fmt: skip


def mutate_bytes(rng: Random, content: bytes) -> bytes:
    """Content with a few bytes flipped, overwritten, cut out, doubled or put in, or with its end cut off."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        at, n = rng.randrange(len(data)), rng.choice((1, 1, 2, 4, 8, 64))
        kind = rng.randrange(7)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice(INTERESTING)
        elif kind == 2:
            del data[at : at + n]
        elif kind == 3:
            data[at:at] = data[at : at + n] * rng.choice((1, 3))
        elif kind == 4:
            data[at:at] = rng.randbytes(n)
        elif kind == 5:
            data[at : at + n] = rng.choice((b"\x00", b"\xff")) * len(data[at : at + n])
        else:
            del data[rng.choice((at, len(data) - 1, len(data) // 2)) :]
    return bytes(data)


def hostile_json(rng: Random, tree: Any) -> bytes:
    """JSON text of `tree` in which a few nodes are another value, gone, or there twice."""
    tree, raw = copy.deepcopy(tree), {}
    for number in range(rng.choice((1, 1, 2, 4))):
        marker = f"@RAW{number}@"
        raw[marker] = rng.choice(RAW_VALUES)
        parent, key = some_place(rng, tree)
        kind = rng.randrange(4)
        if parent is None:
            tree = marker if rng.random() < 0.2 else tree
        elif kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[marker if rng.random() < 0.5 else str(key) + "x"] = parent.pop(key)
        elif kind == 2 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[rng.randrange(len(parent))]))
        else:
            parent[key] = marker
    text = json.dumps(tree)
    for marker, value in raw.items():
        text = text.replace(f'"{marker}":', f"{value if value.startswith(chr(34)) else json.dumps(value)}:")
        text = text.replace(f'"{marker}"', value)
    return text.encode("utf-8", "surrogatepass")


def some_place(rng: Random, tree: Any) -> tuple[Any, Any]:
    """A container and a key of it, or (None, None)."""
    parent, key, node = None, None, tree
    while isinstance(node, dict | list) and node and (parent is None or rng.random() < 0.7):
        parent, key = node, rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        node = node[key]
    return parent, key


def hostile_lines(rng: Random, rows: list[Any]) -> bytes:
    """Jsonl of `rows` of which a few are hostile."""
    lines = [json.dumps(row).encode() for row in rows]
    for _ in range(rng.choice((1, 1, 3))):
        at = rng.randrange(len(rows))
        lines[at] = hostile_json(rng, rows[at])
    if rng.random() < 0.1:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice((b"", b"\xef\xbb\xbf", b"[]", b"\x00", b"null")))
    return rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"\r")).join(lines)


def hostile_document(rng: Random, tree: Any) -> bytes:
    """One JSON document, or a jsonl file where `tree` is a list of rows: hostile in its values or hit in its bytes."""
    rows = tree if isinstance(tree, list) else None
    if rng.random() < 0.4:
        text = json.dumps(tree) if rows is None else "\n".join(map(json.dumps, rows))
        return mutate_bytes(rng, text.encode())
    content = hostile_json(rng, tree) if rows is None else hostile_lines(rng, rows)
    return mutate_bytes(rng, content) if rng.random() < 0.1 else content
