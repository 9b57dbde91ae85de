"""A disk that is full or closed ends a run with a word; what was saved stays whole."""

import contextlib
import os
import subprocess
import sys
import time

import pytest

from eqpot.training.checkpoint import NAME, read_checkpoint
from training_runs import recipe_of, start, write_frames

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk in memory")


@contextlib.contextmanager
def small_disk(path, size):
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a disk in memory needs more rights")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    return write_frames(tmp_path_factory.mktemp("data") / "frames.extxyz")


def finish(process):
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def test_a_disk_that_runs_full_leaves_the_last_checkpoint_and_the_run_goes_on(frames, tmp_path):
    with small_disk(tmp_path / "disk", "8m") as disk:
        recipe = recipe_of(
            frames, disk / "run", {"test": []}, epochs=2000, checkpoint_interval=0.02
        )
        process = start(recipe, tmp_path / "work")
        checkpoint = disk / "run" / NAME
        while process.poll() is None and not checkpoint.exists():
            time.sleep(0.01)
        time.sleep(1.0)
        ballast = disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while process.poll() is None:
                file.write(b"x" * 4096)
        code, output = finish(process)
        assert code == 1, output
        last = output.strip().splitlines()[-1]
        assert last.startswith(f"error: {disk}/run/")
        assert "cannot write" in last and "No space left on device" in last
        assert "Traceback" not in output
        step = read_checkpoint(checkpoint).now.values["step"]
        assert not list((disk / "run").glob(".*.part"))

        ballast.unlink()
        recipe = recipe.model_copy(
            update={"training": recipe.training.model_copy(update={"checkpoint_interval": "1 h"})}
        )
        process = start(recipe, tmp_path / "work")
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("resumed: "):
                process.terminate()
        process.stdout.close()
        assert process.wait() == 143, "".join(lines)
        (resumed,) = [line for line in lines if line.startswith("resumed: ")]
        assert int(resumed.split("step ")[1].split()[0]) >= step > 0


def test_a_disk_that_may_not_be_written_is_named(frames, tmp_path):
    with small_disk(tmp_path / "disk", "8m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        code, output = finish(start(recipe_of(frames, disk / "run"), tmp_path / "work"))
        assert code == 1
        assert f"Read-only file system: '{disk}/run'" in output.strip().splitlines()[-1]
        assert "Traceback" not in output


@contextlib.contextmanager
def closed_folder(path):
    """Make a folder that may not be written, by root neither."""
    path.mkdir(mode=0o500)
    is_root = os.geteuid() == 0
    if is_root:
        made = subprocess.run(["chattr", "+i", str(path)], capture_output=True)
        if made.returncode != 0:
            pytest.skip("nothing is forbidden to root on this file system")
    try:
        yield path
    finally:
        if is_root:
            subprocess.run(["chattr", "-i", str(path)], check=True)


def test_a_folder_without_permission_is_named(frames, tmp_path):
    with closed_folder(tmp_path / "closed") as folder:
        code, output = finish(start(recipe_of(frames, folder / "run"), tmp_path / "work"))
        assert code == 1
        last = output.strip().splitlines()[-1]
        assert "not permitted" in last or "Permission denied" in last
        assert f"'{folder}/run'" in last
        assert "Traceback" not in output
