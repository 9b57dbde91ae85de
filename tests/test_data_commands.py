"""Laws of ``eqpot data``: order and every digit are kept, whatever the formats and processes.

A split is the same for the same seed and keeps together what belongs together. A process that is
killed while it writes leaves the old file or the new one, and its litter is cleared by the next.
"""

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from eqpot.cli.errors import run_app
from eqpot.cli.main import app
from eqpot.data import Frame, FrameStore, iter_frames, read_frames, split_frames, write_store
from eqpot.data.conversion import ReadOptions, iter_files
from eqpot.data.extxyz_writing import write_extxyz
from eqpot.data.groups import strata, trajectory_groups
from eqpot.data.weights import check_config_weights, weighted
from reading_options import READING
from strategies import structures
from test_data import assert_same_frame, some_frames
from test_formats import OUTCAR_END, OUTCAR_HEAD, deepmd_system, outcar_step, vasprun

OPTIONS = {
    "convert": {"inputs", "jobs"} | READING,
    "split": {"file", "fractions", "seed", "by", "output"} | READING,
    "info": {"file", "units", "as_json"},
}


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["eqpot", "data", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run_app(app)
    return ended.value.code or 0


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_frozen(name):
    command = get_command(app).commands["data"].commands[name]
    assert {parameter.name for parameter in command.params} - {"help"} == OPTIONS[name]
    assert command.help and all(p.help for p in command.params if p.name != "help")


def trajectory(n, seed=0, **changes):
    rng = np.random.default_rng(seed)
    numbers = np.array([8, 1, 1])
    return [
        Frame(
            numbers,
            rng.normal(size=(3, 3)),
            energy=float(k),
            forces=rng.normal(size=(3, 3)),
            **({"source": f"run{seed}.xyz, frame {k}"} | changes),
        )
        for k in range(n)
    ]


# --- extended XYZ


def same_but_source(one, other):
    assert_same_frame(replace(one, source=""), replace(other, source=""))
    assert one.group == other.group


def test_extxyz_keeps_every_digit(tmp_path):
    frames = [frame for frame in some_frames() if frame.stress is None or frame.pbc.all()]
    frames[0] = replace(frames[0], group="run 7", config_type="1.50")
    write_extxyz(tmp_path / "set.extxyz", frames)
    found = read_frames(tmp_path / "set.extxyz").frames
    for one, other in zip(found, frames, strict=True):
        same_but_source(one, other)


@given(structures(), st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"])))
def test_extxyz_keeps_any_structure_and_name(tmp_path_factory, atoms, name):
    path = tmp_path_factory.getbasetemp() / "any.extxyz"
    frame = Frame(
        atoms.numbers, atoms.positions, atoms.cell[:], atoms.pbc, energy=0.1, config_type=name
    )
    try:
        write_extxyz(path, [frame])
    except ValueError as error:
        assert "cannot be written" in str(error)  # noqa: PT017
        assert '"' in name or "\\" in name
        return
    same_but_source(read_frames(path).frames[0], frame)


# --- convert


@pytest.fixture
def mixed(tmp_path):
    """Return files of several formats and the energies in them."""
    write_extxyz(tmp_path / "a.extxyz", trajectory(300))
    deepmd_system(tmp_path / "system", 2, 3)
    write_store(tmp_path / "b.h5", trajectory(5, seed=1))
    np.savez(
        tmp_path / "c.npz",
        z=np.array([1]),
        R=np.zeros((4, 1, 3)),
        E=np.arange(4.0),
        N=np.ones(4, int),
    )
    paths = [tmp_path / name for name in ("a.extxyz", "system", "b.h5", "c.npz")]
    deepmd = [frame.energy for frame in iter_frames(tmp_path / "system")]
    return paths, [*map(float, range(300)), *deepmd, *map(float, range(5)), 0.0, 1.0, 2.0, 3.0]


UNITS = ("--units", "energy=eV,length=Å")


def test_convert_keeps_the_order_of_any_formats(tmp_path, monkeypatch, mixed, capsys):
    paths, energies = mixed
    output = tmp_path / "all.h5"
    assert call(monkeypatch, "convert", *paths, output, *UNITS, "--config-type", "x") == 0
    with FrameStore(output) as store:
        assert [frame.energy for frame in store] == energies
        assert {frame.config_type for frame in store} == {"x"}
        assert [entry["name"] for entry in store.provenance["sources"]] == [p.name for p in paths]
    printed = capsys.readouterr().out
    assert f"{paths[0]}: 300 frames" in printed
    assert f"written: {output}, {len(energies)} frames" in printed
    back = tmp_path / "back.extxyz"
    assert call(monkeypatch, "convert", output, back) == 0
    assert [frame.energy for frame in iter_frames(back)] == energies
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")) == []


def test_keys_and_units_are_those_of_the_files_that_need_them(tmp_path, monkeypatch, capsys):
    write_store(tmp_path / "a.h5", trajectory(2))
    (tmp_path / "b.extxyz").write_text("1\nE=2\nH 0 0 0\n")
    out = tmp_path / "out.h5"
    options = ("--energy-key", "E", "--units", "energy=Hartree")
    assert (
        call(monkeypatch, "convert", tmp_path / "a.h5", tmp_path / "b.extxyz", out, *options) == 0
    )
    with FrameStore(out) as store:
        assert [f.energy for f in store] == pytest.approx([0.0, 1.0, 2 * 27.211386245988])
    capsys.readouterr()
    for option in (options[:2], options[2:]):
        out.unlink(missing_ok=True)
        assert call(monkeypatch, "convert", tmp_path / "a.h5", out, *option) == 1
        what = "energy_key" if "E" in option else "units"
        assert f"a.h5: `{what}` has no use for a store" in capsys.readouterr().err
        assert not out.exists()
    assert call(monkeypatch, "convert", tmp_path / "a.h5", out, *UNITS) == 0  # these change nothing


def test_files_with_units_of_their_own_are_not_scaled(tmp_path, monkeypatch, capsys):
    deepmd_system(tmp_path / "system", 1, 3)
    atoms = ase.Atoms("H", [[0, 0, 0]])
    atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    for name in ("a.traj", "a.db", "a.json"):
        ase.io.write(tmp_path / name, atoms)
    (tmp_path / "OUTCAR").write_text(OUTCAR_HEAD + outcar_step(-25.5) + OUTCAR_END)
    (tmp_path / "vasprun.xml").write_text(vasprun([-25.5]))
    np.savez(tmp_path / "c.npz", z=np.array([1]), R=np.zeros((1, 1, 3)), E=np.ones(1))
    out = tmp_path / "out.h5"
    for name in ("system", "a.traj", "a.db", "a.json", "OUTCAR", "vasprun.xml"):
        pair = (tmp_path / "c.npz", tmp_path / name)
        assert call(monkeypatch, "convert", *pair, out, "--units", "energy=kcal/mol,length=Å") == 1
        told = capsys.readouterr().err
        assert f"{tmp_path / name}: files of format `" in told
        assert "convert one by one" in told
        assert not out.exists()
        assert call(monkeypatch, "convert", *pair, out, *UNITS) == 0
        out.unlink()


def test_any_number_of_processes_gives_the_same(tmp_path, monkeypatch, mixed):
    monkeypatch.setattr("eqpot.data.conversion._BATCH_CHARACTERS", 10_000)
    paths, energies = mixed
    options = ReadOptions(units={"energy": "eV", "length": "Angstrom"})
    results = []
    for n_jobs in (1, 2):
        reports = {}
        told = []
        frames = list(
            iter_files(paths, options, n_jobs=n_jobs, reports=reports, progress=told.append)
        )
        assert [frame.energy for frame in frames] == energies
        assert told == sorted(told)
        assert told[-1] == sum(
            sum(f.stat().st_size for f in p.rglob("*.npy")) if p.is_dir() else p.stat().st_size
            for p in paths
        )
        results.append((frames, {path: str(report) for path, report in reports.items()}))
    for one, other in zip(results[0][0], results[1][0], strict=True):
        assert_same_frame(one, other)
    assert results[0][1] == results[1][1]


def test_a_failed_conversion_leaves_what_was_there(tmp_path, monkeypatch, capsys):
    write_store(tmp_path / "out.h5", trajectory(2))
    before = (tmp_path / "out.h5").read_bytes()
    (tmp_path / "bad.xyz").write_text("1\nenergy=1\nH 0 0 0\n2\nenergy=1\nH 0 0 0\n")
    assert call(monkeypatch, "convert", tmp_path / "bad.xyz", tmp_path / "out.h5") == 1
    assert "bad.xyz, frame 1 (line 4): " in capsys.readouterr().err
    assert (tmp_path / "out.h5").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.xyz", "out.h5"]
    for arguments, message in (
        (("none.xyz", "out.h5"), "none.xyz: no such file"),
        (("bad.xyz", "out.txt"), "must end in one of .h5, .extxyz"),
        (("bad.xyz", "bad.xyz"), "is also an input"),
        (("bad.xyz", "nowhere/out.h5"), "there is no folder"),
    ):
        assert call(monkeypatch, "convert", *(tmp_path / name for name in arguments)) == 1
        assert message in capsys.readouterr().err


# --- durability

WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from eqpot.data import Frame, write_store
import eqpot.data.store.writing

def frames():
    for k in range(40):
        print(k, flush=True)
        time.sleep(0.005)
        positions = np.random.default_rng(k).normal(size=(200, 3))
        yield Frame(np.ones(200, dtype=int), positions, energy=1.0)

eqpot.data.store.writing._BUFFER_BYTES = 20_000
write_store(sys.argv[1], frames())
print("done", flush=True)
"""


def test_a_killed_writer_leaves_the_old_file_and_its_litter_is_cleared(tmp_path):
    path = tmp_path / "set.h5"
    write_store(path, trajectory(3))
    before = path.read_bytes()
    for last in ("5", "25"):
        command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            for line in writer.stdout:
                if line.strip() == last:
                    writer.send_signal(signal.SIGKILL)
                    break
        assert writer.returncode == -signal.SIGKILL
        assert path.read_bytes() == before
        litter = [entry for entry in tmp_path.iterdir() if entry != path]
        assert len(litter) == 1  # that of this run; the next run clears it
    with FrameStore(path) as store:
        write_store(path, trajectory(4, seed=1))
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["set.h5"]
        # who reads while another writes keeps the file that was opened
        for found, frame in zip(store, trajectory(3), strict=True):
            assert_same_frame(found, frame)
    assert len(FrameStore(path)) == 4


def test_a_link_to_a_file_stays_a_link(tmp_path):
    for name in ("disk", "work"):
        (tmp_path / name).mkdir()
    link, file = tmp_path / "work" / "set.h5", tmp_path / "disk" / "large.h5"
    link.symlink_to(Path("..") / "disk" / "large.h5")
    for n in (2, 3):  # a link that leads to nothing yet, then to a file
        write_store(link, trajectory(n))
        assert link.is_symlink()
        assert len(FrameStore(file)) == n
        assert [entry.name for entry in (tmp_path / "disk").iterdir()] == ["large.h5"]
    assert [entry.name for entry in (tmp_path / "work").iterdir()] == ["set.h5"]


def test_of_two_writers_one_wins_and_neither_is_cut(tmp_path):
    path = tmp_path / "set.h5"
    meet = threading.Barrier(2)

    def slow(n):
        for k, frame in enumerate(trajectory(n)):
            if k == 1:
                meet.wait(timeout=30)  # both are writing
            yield frame

    writers = [threading.Thread(target=write_store, args=(path, slow(n))) for n in (3, 7)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(FrameStore(path)) in (3, 7)
    assert [entry.name for entry in tmp_path.iterdir()] == ["set.h5"]


@pytest.mark.parametrize("n_frames", [4, 100])  # noticed at the end, or on the way
def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path, n_frames):
    program = """
    import resource, sys
    import numpy as np
    from eqpot.data import Frame, write_store
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    positions = np.random.default_rng(0).normal(size=(5000, 3))
    frame = Frame(np.ones(5000, dtype=int), positions, energy=1.0)
    try:
        write_store(sys.argv[1], [frame] * int(sys.argv[2]))
    except OSError as error:
        sys.exit(f"told: {error}")
    """
    path = tmp_path / "set.h5"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(path), str(n_frames)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"told: {path}: cannot be written" in done.stderr
    assert list(tmp_path.iterdir()) == []


def children_of(pid):
    return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_end_with_a_killed_parent(tmp_path):
    write_extxyz(tmp_path / "a.extxyz", trajectory(50_000))
    code = "from eqpot.cli.main import main; main()"
    command = [sys.executable, "-c", code, "data", "convert", str(tmp_path / "a.extxyz")]
    with subprocess.Popen([*command, str(tmp_path / "a.h5"), "--jobs", "2"]) as parent:
        workers = []
        while len(workers) < 2 and parent.poll() is None:
            time.sleep(0.1)
            workers = children_of(parent.pid)
        time.sleep(4)
        workers = children_of(parent.pid)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.1)
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.slow
def test_memory_of_a_conversion_does_not_grow_with_the_number_of_frames(tmp_path):
    code = (
        "import resource\nfrom eqpot.cli.main import app\napp(standalone_mode=False)\n"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for n in (5_000, 50_000):
        write_extxyz(tmp_path / "a.extxyz", trajectory(n))
        done = subprocess.run(
            [sys.executable, "-c", code, "data", "convert", "a.extxyz", "a.h5"],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )
        peaks.append(int(done.stdout.split("peak")[1]))
    assert peaks[1] < 1.1 * peaks[0]


# --- split


@given(st.integers(3, 80), st.floats(0.05, 0.5), st.floats(0.05, 0.4), st.integers(0, 2**31))
def test_three_parts_divide_all_frames(n, validation, test, seed):
    frames = trajectory(n)
    kinds = [k % 3 for k in range(n)]
    for options in ({}, {"strata": kinds}):
        split = split_frames(frames, validation, seed, test_fraction=test, **options)
        parts = [split.train, split.validation, split.test]
        assert sorted(np.concatenate(parts).tolist()) == list(range(n))
        assert len(split.test) == min(max(1, round(test * n)), n - 2)
        assert all(len(part) > 0 and (np.diff(part) > 0).all() for part in parts)


@given(st.lists(st.integers(1, 9), min_size=3, max_size=30), st.integers(0, 1000))
def test_groups_stay_together(sizes, seed):
    groups = [name for name, size in enumerate(sizes) for _ in range(size)]
    order = np.random.default_rng(seed).permutation(len(groups))
    groups = [groups[k] for k in order]
    split = split_frames(trajectory(len(groups)), 0.2, seed, test_fraction=0.2, groups=groups)
    parts = [{groups[k] for k in part} for part in (split.train, split.validation, split.test)]
    assert sum(map(len, parts)) == len(sizes)
    assert all(parts)
    # sizes are met to within half of the largest group, where there are groups enough
    if len(sizes) >= 10:
        assert abs(len(split.validation) - 0.2 * len(groups)) <= max(sizes)


def test_neighbours_in_time_stay_on_one_side():
    frames = trajectory(500) + trajectory(500, seed=1)
    groups = trajectory_groups(frames)
    split = split_frames(frames, 0.1, 0, test_fraction=0.1, groups=groups)
    side = np.zeros(1000, dtype=int)
    side[split.validation], side[split.test] = 1, 2
    assert len(split.validation) == len(split.test) == 100
    # drawn one by one, 10 % of the frames would part some 340 of the 999 pairs
    assert (np.diff(side) != 0).sum() <= 20
    named = [replace(frame, group=f"molecule {k % 4}") for k, frame in enumerate(frames)]
    assert set(trajectory_groups(named)) == {f"group molecule {k}" for k in range(4)}


def test_strata_are_divided_in_proportion():
    frames = trajectory(200, config_type="liquid") + trajectory(40, config_type="slab")
    frames += [replace(f, atomic_numbers=np.array([6, 1, 1])) for f in trajectory(60)]
    split = split_frames(frames, 0.1, 3, test_fraction=0.2, strata=strata(frames))
    for part, share in ((split.validation, 0.1), (split.test, 0.2)):
        found = Counter(strata(frames[k] for k in part))
        for kind, size in Counter(strata(frames)).items():
            assert abs(found[kind] - share * size) <= 1
    assert (
        len(
            {
                tuple(split_frames(frames, 0.1, s, strata=strata(frames)).validation)
                for s in range(5)
            }
        )
        == 5
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_fraction": 0.9}, "`test_fraction` must be 0 or above and leave frames to train"),
        ({"groups": [0] * 5}, "2 parts need at least as many groups, got 1"),
        ({"groups": [0]}, "`groups` must name 5 frames, names 1"),
        ({"groups": range(5), "strata": range(5)}, "not both"),
    ],
)
def test_impossible_splits_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        split_frames(trajectory(5), 0.2, 0, **options)


@pytest.mark.parametrize("by", ["random", "group", "stratified"])
@pytest.mark.parametrize("suffix", [".h5", ".extxyz", ".json"])
def test_split_writes_all_frames(tmp_path, monkeypatch, by, suffix):
    atom = Frame(np.array([1]), np.zeros((1, 3)), energy=-13.6)
    write_extxyz(tmp_path / "set.extxyz", [*trajectory(100), atom])
    output = tmp_path / f"out{suffix}"
    for _ in range(2):  # twice the same
        done = call(
            monkeypatch,
            "split",
            tmp_path / "set.extxyz",
            "--by",
            by,
            "--output",
            output,
            "--seed",
            5,
        )
        assert done == 0
        if suffix == ".json":
            document = json.loads(output.read_text())
            assert len(document["sha256"]) == 64
            parts = [document[name] for name in ("train", "validation", "test")]
            energies = [[-13.6 if k == 100 else float(k) for k in part] for part in parts]
        else:
            energies = [
                [frame.energy for frame in iter_frames(tmp_path / f"out_{name}{suffix}")]
                for name in ("train", "validation", "test")
            ]
        assert sorted(energy for part in energies for energy in part) == [
            -13.6,
            *map(float, range(100)),
        ]
        assert [len(part) for part in energies] == [81, 10, 10]
        assert -13.6 in energies[0]


def test_split_never_writes_over_its_input(tmp_path, monkeypatch, capsys):
    """``NAME_train`` of an output may be the input itself, or a link to it."""
    for suffix in (".extxyz", ".h5"):
        folder = tmp_path / suffix[1:]
        folder.mkdir()
        source = folder / f"water_train{suffix}"
        call(monkeypatch, "convert", _set(tmp_path, 40), source)
        (folder / f"other_test{suffix}").symlink_to(source)
        before = source.read_bytes()
        capsys.readouterr()
        for name in ("water", "other"):
            output = folder / f"{name}{suffix}"
            assert call(monkeypatch, "split", source, "--output", output) == 1
            assert "is also an input" in capsys.readouterr().err
        assert source.read_bytes() == before
        assert len(list(folder.iterdir())) == 2
    atoms = ase.Atoms("H", calculator=SinglePointCalculator(ase.Atoms("H"), energy=1.0))
    ase.io.write(tmp_path / "rows.json", [atoms] * 20)
    before = (tmp_path / "rows.json").read_bytes()
    output = tmp_path / "rows.json"
    assert call(monkeypatch, "split", output, "--output", output, "--by", "random") == 1
    assert "is also an input" in capsys.readouterr().err
    assert output.read_bytes() == before


def _set(folder, n):
    path = folder / "set.extxyz"
    write_extxyz(path, trajectory(n))
    return path


def test_split_tells_what_was_written_and_notices_a_file_that_changes(
    tmp_path, monkeypatch, capsys
):
    path = _set(tmp_path, 40)
    packed = tmp_path / "water.xyz.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert call(monkeypatch, "split", packed) == 0
    printed = capsys.readouterr().out
    assert "32 frames to train, 4 to validate, 4 to test, of 10 groups" in printed
    assert f"{packed}: 40 frames, 120 atoms: energy 40/40" in printed
    for name, n in (("train", 32), ("validation", 4), ("test", 4)):
        assert f"written: {tmp_path / f'water_{name}.h5'}, {n} frames" in printed
        assert len(FrameStore(tmp_path / f"water_{name}.h5")) == n

    def growing(*arguments, **options):
        yield from iter_files(*arguments, **options)
        calls.append(1)
        if len(calls) == 3:  # groups, division, the set to train
            yield trajectory(1)[0]

    calls = []
    monkeypatch.setattr("eqpot.cli.split.iter_files", growing)
    assert call(monkeypatch, "split", path) == 1
    assert "has 41 frames now, had 40 when they were divided" in capsys.readouterr().err
    assert not list(tmp_path.glob("set_*"))


def test_split_reads_the_labels_it_is_told(tmp_path, monkeypatch, capsys):
    path = tmp_path / "set.extxyz"
    path.write_text(
        "".join(
            f'1\nE_dft={k} my_E=-{k} where=run{k // 4} Lattice="9 0 0 0 9 0 0 0 9"\nH 0 0 0\n'
            for k in range(20)
        )
    )
    arguments = ("--energy-key", "E_dft", "--units", "energy=Hartree", "--config-type", "gas")
    arguments += ("--group-key", "where", "--fractions", "0.6/0.2/0.2")
    assert call(monkeypatch, "split", path, *arguments) == 0
    assert "energy from `E_dft` in 20 of 20 frames" in capsys.readouterr().out
    frames = [f for part in ("train", "validation", "test") for f in stored(tmp_path, part)]
    hartree = 27.211386245988  # CODATA 2018
    assert sorted(f.energy for f in frames) == pytest.approx([k * hartree for k in range(20)])
    assert {f.config_type for f in frames} == {"gas"}
    assert call(monkeypatch, "split", path, "--group-key", "wherre", "--energy-key", "E_dft") == 1
    assert "no frame has `wherre`, given as `group_key`" in capsys.readouterr().err


def stored(folder, part):
    with FrameStore(folder / f"set_{part}.h5") as store:
        return list(store)


@pytest.mark.parametrize("n", [10, 20, 40, 60, 400, 3000])
def test_groups_meet_the_fractions_of_one_trajectory(n):
    frames = trajectory(n)
    for fractions in ((0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.85, 0.1, 0.05)):
        groups = trajectory_groups(frames, min(fractions))
        split = split_frames(frames, fractions[1], 0, test_fraction=fractions[2], groups=groups)
        for part, fraction in zip(
            (split.train, split.validation, split.test), fractions, strict=True
        ):
            assert abs(len(part) - fraction * n) <= max(1, 0.2 * fraction * n)
        assert f"of {len(set(groups))} groups" in str(split)
        assert not any("instead of" in remark for remark in split.remarks)


def test_groups_that_cannot_divide_evenly_are_told():
    frames = trajectory(40)
    split = split_frames(frames, 0.1, 0, test_fraction=0.1, groups=[k // 14 for k in range(40)])
    assert "to validate instead of 4" in str(split)
    assert "the largest holds 14 frames" in str(split)
    split = split_frames(frames, 0.1, 0, groups=range(40))
    assert "40 of 40 groups hold one frame" in str(split)


@pytest.mark.parametrize("text", ["1", "0.5/0.6", "0.8/0.2/0", "a/b", "0.4/0.3/0.2/0.1"])
def test_wrong_fractions_are_refused(tmp_path, monkeypatch, capsys, text):
    write_extxyz(tmp_path / "set.extxyz", trajectory(10))
    assert call(monkeypatch, "split", tmp_path / "set.extxyz", "--fractions", text) == 1
    assert "`--fractions` must be two or three numbers" in capsys.readouterr().err


# --- info


def test_info_tells_what_is_there(tmp_path, monkeypatch, capsys):
    write_store(tmp_path / "set.h5", some_frames())
    assert call(monkeypatch, "info", tmp_path / "set.h5", "--json") == 0
    about = json.loads(capsys.readouterr().out)
    frames = some_frames()
    assert about["format"] == "store"
    assert about["n_frames"] == len(frames)
    assert about["n_atoms"] == sum(map(len, frames))
    assert about["labels"] == {"energy": 11, "forces": 11, "stress": 6}
    assert sum(about["elements"].values()) == about["n_atoms"]
    assert about["n_atom_weighted"] == 1
    largest = max(np.linalg.norm(f.forces, axis=1).max() for f in frames if f.forces is not None)
    assert about["largest_force_ev_per_angstrom"][1] == pytest.approx(largest)
    assert call(monkeypatch, "info", tmp_path / "set.h5") == 0
    assert "energy 11, forces 11, stress 6" in capsys.readouterr().out


# --- weights of kinds


def test_weights_of_kinds_multiply_those_of_frames():
    slab, liquid = trajectory(1, config_type="slab", weight=2.0)[0], trajectory(1)[0]
    assert weighted(slab, {"slab": 3.0}).weight == 6.0
    assert weighted(liquid, {"slab": 3.0}) is liquid
    check_config_weights({"slab": 3.0}, ["slab", "liquid"])
    with pytest.raises(ValueError, match="no frame has the config_type `slub`; did you mean slab"):
        check_config_weights({"slub": 3.0}, ["slab", "liquid"])
    for wrong in (0.0, -1.0, float("nan"), "2"):
        with pytest.raises(ValueError, match="the weight of `slab` must be a number above zero"):
            check_config_weights({"slab": wrong}, ["slab"])
