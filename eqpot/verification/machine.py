"""The machine that all this ran on."""

import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return processor, threads, system, versions, and the largest memory held so far in MiB.

    The memory is that of the whole process, training included.
    """
    machine: dict[str, Any] = {
        "processor": processor_name(),
        "n_cores": os.cpu_count(),
        "n_threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": str(device),
        "peak_memory_mib": peak_memory(),
    }
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
        machine["peak_gpu_memory_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    return machine


def processor_name() -> str:
    """Return the name of the processor, as Linux tells it, or what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_memory() -> float | None:
    """Return the largest resident memory of this process so far in MiB, where it can be known."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB elsewhere
