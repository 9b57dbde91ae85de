"""Who is compared: the variants of the programs, and the environments they are installed in."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

TORCH: Final = "torch==2.13.0"
"""The same for all, and installed first, so that no peer brings another."""

ENVIRONMENTS: Final[dict[str, tuple[str, ...]]] = {
    "mace": ("mace-torch==0.3.16",),
    "nequip": ("nequip==0.19.1", "nequip-allegro==0.8.3"),
    "tensornet": ("torchmd-net==3.1.0", "ase==3.29.0"),
}
"""What each environment holds; an environment of its own for each, as they may conflict."""


@dataclass(frozen=True)
class Variant:
    """A program with its options.

    Attributes
    ----------
    program
        File of the program, ``programs/{program}_program.py``, and its environment.
    options
        Arguments of its class.
    threads
        Of its process; 0 for those of the run.
    """

    program: str
    options: dict[str, Any] = field(default_factory=dict)
    threads: int = 0


VARIANTS: Final[dict[str, Variant]] = {
    "eqpot-small": Variant("eqpot", {"preset": "small"}),
    "eqpot-medium": Variant("eqpot", {"preset": "medium"}),
    "eqpot-large": Variant("eqpot", {"preset": "large"}),
    "mace-128": Variant("mace", {"irreps": "128x0e + 128x1o"}),
    "mace-32": Variant("mace", {"irreps": "32x0e + 32x1o"}),
    "nequip-l1": Variant("nequip", {"architecture": "nequip", "l_max": 1}),
    "nequip-l2": Variant("nequip", {"architecture": "nequip", "l_max": 2}),
    "allegro-l2": Variant("nequip", {"architecture": "allegro", "l_max": 2}),
    "tensornet-128": Variant("tensornet", {"n_features": 128}),
}
"""The variants that are known by name; the command line may add others of eqpot."""


def eqpot_variant(text: str) -> tuple[str, Variant]:
    """Return name and variant of ``NAME={"preset": ..., "calculator": {...}, "threads": 2, ...}``.

    Raises
    ------
    ValueError
        If the text has another form.
    """
    name, _, options = text.partition("=")
    found = json.loads(options or "null")
    if not name or not isinstance(found, dict):
        raise ValueError(f'a variant must be NAME={{"preset": ...}}, got {text!r}')
    threads = found.pop("threads", 0)
    if type(threads) is not int or threads < 0:
        raise ValueError(f"`threads` of a variant must be a number from 1 on, got {threads!r}")
    return name, Variant("eqpot", found, threads)


def python_of(program: str, folder: Path, given: dict[str, Path]) -> Path:
    """Return the interpreter of a program's environment."""
    if program == "eqpot":
        return Path(sys.executable)
    return given.get(program, folder / program / "bin" / "python")


def install(program: str, folder: Path) -> None:
    """Create the environment of a program, unless it is complete.

    Raises
    ------
    RuntimeError
        If the packages cannot be installed.
    """
    python = folder / program / "bin" / "python"
    done = folder / program / "installed.json"
    packages = [TORCH, *ENVIRONMENTS[program]]
    if done.exists() and json.loads(done.read_text()) == packages:
        return
    print(f"installing {', '.join(packages)} into {folder / program}", file=sys.stderr)
    commands = [
        [sys.executable, "-m", "venv", "--clear", str(folder / program)],
        [str(python), "-m", "pip", "install", "--quiet", TORCH],
        [str(python), "-m", "pip", "install", "--quiet", *packages],
    ]
    for command in commands:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            raise RuntimeError((ended.stderr.strip().splitlines() or ["pip failed"])[-1])
    done.write_text(json.dumps(packages))
