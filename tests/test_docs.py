"""The documentation builds without a warning, and holds every key of a recipe."""

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.main import get_command

from eqpot.cli.main import app
from eqpot.cli.train import app as train_app
from eqpot.training.fine_tuning_section import FineTuningSection
from eqpot.training.recipe import DataSection, ModelSection, TrainingSection

ROOT = Path(__file__).parents[1]
MISSING = [name for name in ("sphinx", "myst_parser", "furo") if find_spec(name) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING}; pip install --group docs")
def test_documentation_builds_without_warnings(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    build = subprocess.run(
        [*command, "-d", str(tmp_path / "cache"), str(ROOT / "docs"), str(tmp_path / "html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    page = (tmp_path / "html" / "recipe.html").read_text(encoding="utf-8")
    for section in (DataSection, ModelSection, FineTuningSection, TrainingSection):
        for key in section.model_fields:
            assert f'<span class="pre">{key}</span>' in page
    model = (tmp_path / "html" / "model.html").read_text(encoding="utf-8")
    assert "<math" in model
    assert 'src="http' not in model  # the pages need no network


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page):
    """Return the commands and recipes that a page shows."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```(?:bash|sh|console|yaml)\n(.*?)^```", text, flags=re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_in_commands_are_there(page):
    for block in blocks(page):
        for name in re.findall(r"(?<![\w./])(?:data|training|examples)/[\w./*-]+", block):
            assert list(ROOT.glob(name)), f"{page.name}: there is no {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_such_as_the_programs_take(page):
    for line in "".join(blocks(page)).replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if not words or words[0] not in ("eqpot", "train-potential"):
            continue
        command = get_command(app if words[0] == "eqpot" else train_app)
        name, arguments = words[0], words[1:]
        while hasattr(command, "commands"):
            name, arguments = arguments[0], arguments[1:]
            command = command.commands[name]
        command.make_context(name, arguments)


def test_pages_name_every_module():
    """The reference of the code leaves out no public module but commands and reports."""
    pages = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md")
    )
    for path in sorted((ROOT / "eqpot").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if path.name == "__init__.py" or module.startswith(("eqpot.cli.", "eqpot.report.")):
            continue
        assert f".. automodule:: {module}\n" in pages, f"add {module} to docs/reference"
