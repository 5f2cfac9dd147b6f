"""The machine that computes: device, threads, memory allocator, and how it is named in tables."""

import ctypes
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from offramp import OfframpError

# Parameters of glibc's mallopt, from its malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TOUCHED = 2**30  # bytes


def prepare(config: Mapping[str, Any]) -> tuple[torch.device, dict[str, str]]:
    """Set allocator and compute threads as the config says; call once, before anything large.

    Returns the device and what a table of timings says of it: backend, dtype, threads, CPU name.
    """
    # torch then asks Linux for huge pages for large tensors: up to a tenth faster, and more alike
    # from process to process, where small pages lie now better, now worse.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    keep_freed_memory()
    # oneDNN prepares a kernel for every batch size it meets; a cascade meets most sizes at every
    # block, more than the 1024 that it remembers by default.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")
    threads = config["threads"] or usable_cores()
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = (
        False  # the float exceptions of the verification hold for fp32
    )
    device = choose_device(config["device"])
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return device, {
        "device": device.type,
        "device_name": name,
        "backend": config.get("backend", "eager"),
        "dtype": "float32",
        "threads": str(threads),
        "torch": torch.__version__,
    }


def keep_freed_memory() -> None:
    """Make glibc keep freed memory instead of mapping large tensors afresh on every call, which
    costs a slow first touch of every page; and touch TOUCHED of it now, since a heap that grows in
    the middle of a run does so too: a pass of 57 ms took up to 153. Does nothing where the C
    library is not glibc."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 256 * 2**20)
        torch.full((TOUCHED,), 1, dtype=torch.uint8)  # freed at once, and kept


def choose_device(name: str) -> torch.device:
    """The device of a name, as the config knows them; ``auto`` takes cuda, then mps, then cpu.

    Raises OfframpError when the named device is not there.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, is_there in present.items() if is_there)
    kind, _, number = name.partition(":")  # cuda:1 is the second of several
    if kind not in present or not (number.isdecimal() or name == kind):
        raise OfframpError(f"device: {name!r} is none of auto, {', '.join(present)}")
    if not present[kind] or int(number or 0) >= max(1, torch.cuda.device_count()):
        raise OfframpError(f"device: {name} is not available here; use auto or cpu")
    return torch.device(name)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given, so that a clock reads true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def timed(call: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """What a call returns, and its seconds, from when the device has nothing left to do: on cuda
    between two events of its stream, elsewhere by the clock, the device waited for."""
    synchronize(device)
    if device.type == "cuda":
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        result = call()
        ended.record()
        ended.synchronize()
        return result, begun.elapsed_time(ended) / 1000
    start = time.perf_counter()
    result = call()
    synchronize(device)
    return result, time.perf_counter() - start


def cpu_name() -> str:
    """The processor's name as its maker gives it, with the number of usable cores."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        models = [line for line in lines if line.startswith("model name")]
        name = models[0].split(":", 1)[1].strip() if models else name
    return f"{name}, {usable_cores()} cores"


def usable_cores() -> int:
    """How many cores this process may really use."""
    import joblib  # only here: whoever uses a policy has no need of it

    return joblib.cpu_count()
