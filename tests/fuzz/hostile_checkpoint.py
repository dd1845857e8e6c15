"""Checkpoints that would run code, lie about their sizes, or were hit on the way."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import torch

from tests.fuzz.mutations import mutate_bytes

ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3, 2**31, 2**62, 10**30, 1e308, float("nan"), "x", b"x", [], {}, [[]], torch.zeros(0),
    torch.zeros(1).expand(1 << 20, 1 << 10), torch.zeros(3, dtype=torch.complex64), torch.zeros(2, 2).to_sparse(),
    torch.tensor(7), "video_sub_tef_" * 3, "../../x", (1,),
)  # fmt: skip


class Calls:
    """Pickles as a call of `function(*args)`."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def write_checkpoint(rng: Random, path: Path, good: dict[str, Any]) -> None:
    """A checkpoint at `path`, in either of torch's forms, made hostile in one of a few ways."""
    content = {**good, "model": dict(good["model"]), "model_cfg": dict(good["model_cfg"])}
    kind = rng.choice((0, 1, 1, 2, 3, 3, 3, 4, 5, 5, 5, 5))
    if kind == 0:
        marker = str(path.parent / "marker")
        call = rng.choice(
            (
                Calls(os.system, f"touch {marker}"), Calls(builtins.eval, "1"), Calls(builtins.exec, "1"),
                Calls(open, marker, "w"), Calls(torch.load, marker), Calls(getattr, "x", "upper"),
                Calls(os.mkdir, marker), Calls(__import__, "os"), Calls(torch.hub.load, marker, "x"),
            )
        )  # fmt: skip
        rng.choice((content, content["model"], content["model_cfg"]))["extra"] = call
    elif kind == 1:
        parts = (content, content["model"], content["model_cfg"], content["model_cfg"])
        for part in rng.choices(parts, k=2):
            part[rng.choice([*part, "extra"])] = rng.choice(ODD_VALUES)
    elif kind == 2:
        _claim_more(rng, content)
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=rng.random() < 0.6)
    data = buffer.getvalue()
    if kind == 3 and zipfile.is_zipfile(buffer):
        data = with_another_pickle(rng, data)
    elif kind == 4 and zipfile.is_zipfile(buffer):
        data = inflated(rng, data)
    elif kind in (3, 4, 5):
        data = mutate_bytes(rng, data)
    path.write_bytes(data)


def _claim_more(rng: Random, content: dict[str, Any]) -> None:
    """Weights of a large model that all repeat one number."""
    from method_tvr.model import ModelConfig, ReLoCLNet

    content["model_cfg"][rng.choice(("hidden_size", "max_ctx_l", "visual_input_size"))] = rng.choice((1 << 10, 1 << 13))
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in ReLoCLNet(ModelConfig.from_dict(content["model_cfg"])).state_dict().items()}
    content["model"] = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}


def with_another_pickle(rng: Random, data: bytes) -> bytes:
    """The archive with its pickle hit, or another one in its place."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            part = source.read(name)
            if name.endswith("data.pkl"):
                other = (b"\x80\x02]" + b"]" * 5000 + b".", b"\x80\x04\x96" + b"\xff" * 7 + b"\x0f.", pickle.dumps([1]))
                part = mutate_bytes(rng, part) if rng.random() < 0.8 else rng.choice(other)
            target.writestr(name, part)
    return out.getvalue()


def inflated(rng: Random, data: bytes) -> bytes:
    """The archive compressed, and one of its parts followed by very many zeros."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        chosen = rng.choice(source.namelist())
        for name in source.namelist():
            target.writestr(name, source.read(name) + (b"\0" * (64 << 20) if name == chosen else b""))
    return out.getvalue()
