"""Devices are said aloud, seeds are obeyed, sources of chance are independent."""

import random
import re
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from utils import extract_features, model_utils
from utils.basic_utils import InputError
from utils.model_utils import (
    available_memory,
    choose_device,
    count_parameters,
    named_generator,
    named_when_out_of_memory,
    seed_everything,
    use_cuda,
)
from utils.text_feature import extract_text_features
from utils.text_feature import lm_finetuning_on_single_sentences as finetuning
from utils.video_feature import extract_frame_features, extract_i3d_features

OUT_OF_MEMORY = (  # as torch 2.14 says it
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 1 has a total capacity of 79.11 GiB of which 1.25 GiB is free."
    " Process 7 has 77.86 GiB memory in use. Of the allocated memory 77.1 GiB is allocated by PyTorch"
)


def test_the_cpu_is_used_without_a_word_when_asked_for(capsys):
    assert choose_device(-1).type == "cpu"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("built_for", "error", "reason"),
    [
        (None, AssertionError("Torch not compiled with CUDA enabled"), "torch .* was installed without it"),
        ("13.0", RuntimeError("Found no NVIDIA driver on your system. Please"), "there is no NVIDIA driver"),
        (
            "13.0",
            RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please"),
            "the NVIDIA driver is too old for torch .*, built for CUDA 13.0: update",
        ),
        ("13.0", RuntimeError("No CUDA GPUs are available\nmore"), r"No CUDA GPUs are available \("),
    ],
)
def test_a_missing_gpu_is_said_aloud_with_the_reason_in_one_line(capfd, monkeypatch, built_for, error, reason):
    def fail() -> None:
        raise error

    def none() -> bool:
        warnings.warn("as torch does when it cannot tell", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", none)
    monkeypatch.setattr(torch.cuda, "init", fail)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    assert choose_device(0).type == "cpu"
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("note: CUDA is not available, using the CPU: ")
    assert re.search(reason, line)


@pytest.fixture
def two_gpus(monkeypatch) -> list[int]:
    """A machine with two CUDA devices that work; the list gets the device that is made the current one."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(model_utils, "_add_on", lambda number: None)
    return current


def failing(error: Exception):
    def fail(*_: object) -> None:
        raise error

    return fail


def test_a_gpu_that_torch_has_no_code_for_is_a_missing_one(capsys, monkeypatch, two_gpus):
    error = RuntimeError("CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors")
    monkeypatch.setattr(model_utils, "_add_on", failing(error))
    assert choose_device(1).type == "cpu"
    assert re.match(
        r"note: CUDA is not .*: torch .* is not built for a device such as cuda:1 \(.*\n$", capsys.readouterr().err
    )
    with pytest.raises(InputError):  # one of several processes cannot go elsewhere
        use_cuda(1)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors"),
        torch.cuda.OutOfMemoryError(OUT_OF_MEMORY),
        torch.cuda.DeferredCudaCallError("CUDA call failed lazily at initialization with error: x"),
    ],
)
def test_a_gpu_that_does_not_work_is_an_error(monkeypatch, two_gpus, error):
    monkeypatch.setattr(model_utils, "_add_on", failing(error))
    said = re.escape(str(error).splitlines()[0])
    with pytest.raises(
        InputError, match=rf"^--device 1: cuda:1 is there but cannot be used \({said}\): .*-1"
    ) as caught:
        choose_device(1)
    assert "\n" not in str(caught.value)
    assert two_gpus == []


@pytest.mark.parametrize(("asked", "used", "said"), [(0, 0, False), (1, 1, False), (5, 0, True)])
def test_gpus_are_used_by_number(capsys, two_gpus, asked, used, said):
    assert choose_device(asked) == torch.device("cuda", used)
    assert two_gpus == [used]  # or what names no device, such as pinning memory, would use cuda:0 too
    assert ("no CUDA device 5" in capsys.readouterr().err) == said


@pytest.fixture
def precision(two_gpus):
    """Whether products, and convolutions, may use TF32 now."""

    def now() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = now()
    yield now
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("tf32", [False, True])
def test_products_and_convolutions_have_one_precision(precision, tf32):
    choose_device(0, tf32)
    assert precision() == (tf32, tf32)


def test_without_a_word_about_it_the_precision_is_torchs(precision):
    before = precision()
    choose_device(0)
    assert precision() == before


def test_on_the_cpu_the_precision_is_left_alone(precision):
    before = precision()
    choose_device(-1, True)
    assert precision() == before


OPTIONS = {
    "bsz": 128, "small": 1, "trim_padding": False, "bf16": True, "amp": "off", "retrieval_dtype": "fp32",
    "feature_cache": "device", "cache": "ram", "block_size": None,
}  # fmt: skip


def test_memory_that_runs_out_is_an_error_that_says_what_needs_less():
    with pytest.raises(InputError) as caught, named_when_out_of_memory(OPTIONS, list(OPTIONS), "; and so on"):
        raise torch.cuda.OutOfMemoryError(OUT_OF_MEMORY)
    assert str(caught.value) == (
        "the GPU's memory is not enough: 2.50 GiB were asked for, and GPU 1 has 79.11 GiB in all, of which 1.25 GiB "
        "are free: try a --bsz below 128, --trim_padding, --amp bf16, --retrieval_dtype fp16, --feature_cache ram, or "
        "--device -1 for the CPU; and so on"
    )


@pytest.mark.parametrize(
    ("program", "work", "argv", "options"),
    [
        (
            extract_features,
            "make_dataset",
            "--videos v --out o --bf16",
            "image_batch_size i3d_batch_size text_batch_size",
        ),
        (extract_text_features, "_run", "--query_file q --tgt_h5_file o", "batch_size bf16"),
        (finetuning, "_run", "--train_data_file q --output_dir o", "per_gpu_train_batch_size bf16"),
        (extract_frame_features, "load_image_model", "--videos v --out o", "batch_size"),
        (extract_i3d_features, "load_i3d", "--videos v --out o --weights w", "batch_size"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_extraction_and_fine_tuning_say_what_needs_less_memory(monkeypatch, capsys, program, work, argv, options):
    monkeypatch.setattr(program, work, failing(torch.cuda.OutOfMemoryError(OUT_OF_MEMORY)))
    monkeypatch.setattr(program, "videos_of", lambda args: {}, raising=False)
    monkeypatch.setattr(sys, "argv", ["command", *argv.split(), "--device", "-1"])
    with pytest.raises(SystemExit) as caught:
        program.main()
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: the GPU's memory is not enough: 2.50 GiB were asked for")
    assert re.findall("--([a-z0-9_]+)", said) == [*options.split(), "device"]


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "NCCL error in: NCCLUtils.cpp:94, unhandled cuda error\nCuda failure 2 'out of memory'",
    ],
)
def test_the_libraries_of_cuda_say_in_other_words_that_memory_runs_out(said):
    with pytest.raises(InputError, match=re.escape(said.splitlines()[0])), named_when_out_of_memory({}, ()):
        raise RuntimeError(said)


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: misaligned address"), ZeroDivisionError(), InputError("x")]
)
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as caught, named_when_out_of_memory(OPTIONS, list(OPTIONS)):
        raise error
    assert caught.value is error


def draws() -> tuple:
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002  (the global generator is meant)


def test_a_seed_decides_every_global_generator():
    seed_everything(3)
    first = draws()
    seed_everything(3)
    assert draws() == first
    seed_everything(4)
    assert not set(draws()) & set(first)


def test_named_generators_depend_on_seed_and_name_alone():
    def drawn(seed: int, name: str) -> list[int]:
        return torch.randint(1 << 30, (4,), generator=named_generator(seed, name)).tolist()

    first = drawn(1, "shuffle/0")
    torch.rand(7)
    assert drawn(1, "shuffle/0") == first
    others = [drawn(2, "shuffle/0"), drawn(1, "shuffle/1"), drawn(1, "negatives/0"), drawn(11, "/shuffle/0")]
    assert len({tuple(numbers) for numbers in [first, *others]}) == 5


def test_only_trainable_parameters_are_counted():
    model = nn.Linear(3, 2)
    assert count_parameters(model) == 8
    model.bias.requires_grad_(False)
    assert count_parameters(model) == 6


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says how much memory there is")
def test_processes_of_a_launcher_share_the_memory(monkeypatch):
    alone = available_memory()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert 0 < available_memory() < alone / 2
