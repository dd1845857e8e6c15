"""A CUDA device played by the CPU: tensors that say they are on `cuda` and hold real values in host memory.

What torch forbids on a GPU is forbidden (tensors of two devices in one operation, a CPU generator for a CUDA tensor,
`numpy()` of a CUDA tensor), what makes the host wait is recorded with its line, and the source of a copy that may still
be under way must not be written to. On a machine with a GPU the same code runs on that instead.
"""

from __future__ import annotations

import os
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from method_tvr.dataset import loading
from method_tvr.training import training_step

METHOD = str(Path(training_step.__file__).parents[1])
REAL = torch.cuda.is_available() and "FAKE_CUDA" not in os.environ
PLAIN_GENERATOR = torch.Generator
CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")


class OnCuda(torch.Tensor):
    """A tensor in host memory that is taken to be on the GPU."""


T = torch.Tensor
INDEXING = {T.__getitem__, T.__setitem__, torch.index_put, T.index_put, T.index_put_}
MIXING = {
    T.copy_,
    torch._has_compatible_shallow_copy_type,
    T.to,
    T.cpu,
    T.cuda,
    T.type_as,
    T.requires_grad.__get__,
    T.data.__get__,
    T.device.__get__,
}
ZERO_DIM_TOO = {torch.stack, torch.cat, torch.gather, T.gather, torch.matmul, T.matmul}  # no CPU scalars in these
WAITING = {
    T.item, T.tolist, T.__bool__, T.__int__, T.__float__, T.__index__, T.cpu, T.nonzero, torch.nonzero, torch.equal,
    T.equal, torch.allclose, T.allclose, torch.unique, T.unique, T.masked_select, torch.masked_select, T.__contains__,
    T.__repr__, T.__format__,
}  # fmt: skip
RANDOM = ("normal_", "uniform_", "random_", "bernoulli_", "randint", "rand", "randn", "randperm", "multinomial")


class FakeCuda(TorchFunctionMode):
    """Within it there is a CUDA device.

    Attributes:
        waits: {(what, file:line of the method): how often the host waited for the device}.
        copies: {(pinned or pageable, blocking or not): bytes from host to device}.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.copies: Counter[tuple[str, str]] = Counter()
        self.pinned: set[int] = set()  # storages
        self._kept: list[torch.Tensor] = []  # or addresses would be used again
        self._under_way: list[tuple[torch.Tensor, torch.Tensor, str]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func == T.device.__get__:
            return CUDA if isinstance(args[0], OnCuda) else CPU
        if func == T.is_cuda.__get__:
            return isinstance(args[0], OnCuda)
        if func is T.is_pinned:
            return args[0].untyped_storage().data_ptr() in self.pinned
        with torch._C.DisableTorchFunctionSubclass():
            if func in (T.to, T.cpu, T.cuda):
                return self._moved(func, args, kwargs)
            if func is T.pin_memory:
                return self._pin(args[0].clone())
            on_cuda = self._checked(func, args, kwargs)
            pin = kwargs.pop("pin_memory", False)
            if kwargs.get("device") is not None:
                on_cuda = torch.device(kwargs["device"]).type == "cuda"
                kwargs["device"] = CPU
            found = func(*args, **kwargs)
            if pin:
                return self._pin(found)
        return _put(found, args, kwargs) if on_cuda else found

    def _checked(self, func, args, kwargs) -> bool:
        """Whether the result is on the GPU; raises what torch raises there."""
        tensors = _tensors(args, kwargs)
        there = [x for x in tensors if isinstance(x, OnCuda)]
        if not there:
            if isinstance(kwargs.get("device"), torch.device) and kwargs["device"].type == "cuda":
                self._check_generator(func, kwargs)
            return False
        name = getattr(func, "__name__", str(func))
        here = [x for x in tensors if not isinstance(x, OnCuda)]
        if func in INDEXING:
            if not isinstance(args[0], OnCuda):
                raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
            for index in _tensors(args[1]):
                if not isinstance(index, OnCuda):
                    self._wait("index from the host")
                if index.dtype == torch.bool and func is T.__getitem__:
                    self._wait("boolean index")
            here = [x for x in _tensors(args[2:]) if not isinstance(x, OnCuda)]
        if func not in MIXING and any(x.dim() or func in ZERO_DIM_TOO for x in here):
            raise RuntimeError(f"{name}: Expected all tensors to be on the same device, found cuda:0 and cpu")
        if func in (T.numpy, T.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        self._check_generator(func, kwargs)
        if func in WAITING:
            self._wait(name)
        return True

    @staticmethod
    def _check_generator(func, kwargs) -> None:
        name = getattr(func, "__name__", "")
        if kwargs.get("generator") is not None and name in RANDOM and kwargs["generator"].device.type == "cpu":
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")

    def _moved(self, func, args, kwargs):
        tensor, *rest = args
        device = CUDA if func is T.cuda else CPU if func is T.cpu else kwargs.pop("device", None)
        dtype, flags = kwargs.get("dtype"), []
        for value in rest:
            if isinstance(value, torch.Tensor):
                device, dtype = (CUDA if isinstance(value, OnCuda) else CPU), value.dtype
            elif isinstance(value, torch.device | str):
                device = torch.device(value)
            elif isinstance(value, torch.dtype):
                dtype = value
            elif isinstance(value, bool):
                flags.append(value)
        non_blocking = kwargs.get("non_blocking", flags[:1] == [True])
        was = isinstance(tensor, OnCuda)
        there = was if device is None else torch.device(device).type == "cuda"
        found = tensor.to(dtype=dtype or tensor.dtype, copy=kwargs.get("copy", flags[1:] == [True]))
        if was == there:
            return found if found is tensor else _put(found, (), {}) if there else found
        found = (found.clone() if found is tensor else found).as_subclass(OnCuda if there else torch.Tensor)
        if not there:
            self._wait("copy to the host")
            return found
        pinned = tensor.untyped_storage().data_ptr() in self.pinned
        kind = "pinned" if pinned else "pageable", "without waiting" if non_blocking else "waiting"
        self.copies[kind] += tensor.nbytes
        if not non_blocking and tensor.numel():
            self._wait(f"copy of {'a tensor' if tensor.dim() else 'a number'} to the device")
        if non_blocking and pinned:  # until the next wait, nobody may write there
            self._under_way.append((tensor, tensor.clone(), _line()))
        return found

    def _pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self.pinned.add(tensor.untyped_storage().data_ptr())
        self._kept.append(tensor)
        return tensor

    def _wait(self, what: str) -> None:
        self.waits[what, _line()] += 1
        self.check_copies()

    def check_copies(self) -> None:
        """Everything that was copied without waiting is still what it was when the copy began."""
        under_way, self._under_way = self._under_way, []
        for source, then, line in under_way:
            assert torch.equal(source, then), f"written to while it was being copied: {line}"


def _tensors(*trees) -> list[torch.Tensor]:
    """All tensors in nested arguments; torch's own walk takes most of the time that a step takes here."""
    found, left = [], list(trees)
    while left:
        value = left.pop()
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            left += value
        elif isinstance(value, dict):
            left += value.values()
    return found


def _put(found, args, kwargs):
    """The tensors of a result on the GPU; what an operation gave back of its own arguments stays the same object."""
    own = {id(x) for x in _tensors(args, kwargs)}

    def put(x):
        return x.as_subclass(OnCuda) if isinstance(x, torch.Tensor) and id(x) not in own else x

    if isinstance(found, torch.Tensor):
        return put(found)
    return tree_map(put, found) if isinstance(found, list | tuple) else found


def _line() -> str:
    """Where in the method's code this was asked for."""
    for frame, number in traceback.walk_stack(None):
        if frame.f_code.co_filename.startswith(METHOD):
            return f"{Path(frame.f_code.co_filename).name}:{number}"
    return "a test"


class _Generator(torch.Generator):
    """A generator that says it is on the GPU."""

    device = CUDA


class _Generators(torch.Generator):
    """What makes generators: on the GPU such that say so."""

    def __new__(cls, device: torch.device | str = "cpu") -> torch.Generator:
        return (_Generator if torch.device(device).type == "cuda" else PLAIN_GENERATOR)()


class _Event:
    def record(self) -> None:
        pass

    def query(self) -> bool:
        return True


def _recorded(self: training_step.GraphedStep, step):
    """In a graph's place: the function that would be captured, run each time that the graph would be launched."""
    found: dict[str, training_step.StepValues] = {}
    return lambda: found.update(values=step()), SimpleNamespace(clone=lambda: found["values"].clone())


def _grouped(groups):
    """torch's grouping of tensors by their device, which looks past what they say."""

    def grouped(tensors, *options):
        found = groups(tensors, *options)
        return {(CUDA if isinstance(g[0][0][0], OnCuda) else key[0], *key[1:]): g for key, g in found.items()}

    return grouped


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """The device as `FakeCuda`, unless there is a real one; yields what has been recorded."""
    mode = FakeCuda()
    if REAL:
        yield mode
        return
    loaded = loading.BatchLoader._made

    def make(self, indices):
        with mode:  # the thread that makes batches
            return loaded(self, indices)

    nothing = SimpleNamespace(device=CUDA, wait_stream=lambda stream: None)
    replaced = {
        "Generator": _Generators,
        "cuda.is_available": lambda: True,
        "cuda.device_count": lambda: 1,
        "cuda.mem_get_info": lambda device=None: (1 << 36, 1 << 36),
        "cuda.get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
        "cuda.set_rng_state": lambda state, device=None: None,
        "cuda.Stream": lambda device=None: nothing,
        "cuda.stream": lambda stream: nullcontext(),
        "cuda.current_stream": lambda device=None: nothing,
        "cuda.Event": _Event,
        "Tensor.record_stream": lambda self, stream: None,
        "nn.utils.clip_grad._group_tensors_by_device_and_dtype": _grouped(
            torch.nn.utils.clip_grad._group_tensors_by_device_and_dtype
        ),
    }
    for name, value in replaced.items():
        monkeypatch.setattr(f"torch.{name}", value)
    monkeypatch.setattr(loading.BatchLoader, "_made", make)
    monkeypatch.setattr(training_step.GraphedStep, "_captured", _recorded)
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # or parameters would stay what they are
    try:
        with mode:
            yield mode
            mode.check_copies()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def values(x: torch.Tensor) -> torch.Tensor:
    """A plain tensor on the CPU with the values of one on the device."""
    return x.detach().cpu().as_subclass(torch.Tensor)
