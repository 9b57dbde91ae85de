"""Where and with what the numbers came about."""

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import eqpot


def describe() -> dict[str, Any]:
    """Return machine, load, date and commit."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "commit": commit(Path(eqpot.__file__).parent),
    }


def cpu_model() -> str:
    """Return the name of the processor."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit(package: Path) -> str:
    """Return the commit of the package that runs, ``+changes`` if files differ from it."""

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", "-C", str(package), *words], capture_output=True, text=True, check=False
        )

    try:
        if git("ls-files", "--error-unmatch", "__init__.py").returncode != 0:
            return "unknown"  # an installed copy may differ from the repository around it
        changes = git("status", "--porcelain", "--", ".").stdout.strip()
        head = git("rev-parse", "--short=12", "HEAD").stdout.strip()
    except FileNotFoundError:
        return "unknown"
    return head + ("+changes" if changes else "")
