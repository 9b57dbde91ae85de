"""Law of hostile data: a file made to harm is refused with its name, in little memory and time.

All files are read in one process whose memory may grow by no more than 384 MiB, though they claim
or unpack to many GiB.
"""

import bz2
import gzip
import io
import json
import pickle
import subprocess
import sys
import textwrap
import zipfile

import ase.io.ulm
import numpy as np
import pytest

from eqpot.data import read_frames
from eqpot.data.extxyz_writing import write_extxyz
from test_data import some_frames
from test_formats import (
    FLAT,
    OUTCAR_END,
    OUTCAR_HEAD,
    PADDED,
    database,
    deepmd_system,
    outcar_step,
    vasprun,
)

UNITS = {"energy": "eV", "length": "Angstrom"}
PROGRAM = """
import json, resource, sys, time
from pathlib import Path
import ase.io, ase.db, ase.io.ulm  # what the readers import must not count
from eqpot.data import read_frames

allowed = 384 * 2**20
status = Path("/proc/self/status").read_text()
used = 1024 * int(status.split("VmData:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_DATA, (used + allowed, used + allowed))
for path in map(Path, sys.argv[1:]):
    started = time.monotonic()
    units = {"energy": "eV", "length": "Angstrom"} if path.suffix == ".npz" else None
    try:
        read_frames(path, units=units)
        outcome = "was read"
    except (ValueError, OSError) as error:
        outcome = str(error)
    except BaseException as error:
        outcome = f"{type(error).__name__} {error}"
    print(json.dumps([path.name, outcome, time.monotonic() - started]))
"""


def sparse(path, head, size):
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)


def npy_header(shape, dtype="<f8"):
    stream = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


class Bomb:
    """Would run on unpickling."""

    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was run')",)


def deepmd(folder, coord):
    (folder / "set.000").mkdir(parents=True)
    (folder / "type.raw").write_text("0\n")
    (folder / "type_map.raw").write_text("H\n")
    (folder / "nopbc").touch()
    (folder / "set.000" / "coord.npy").write_bytes(coord)


def make(tmp_path):
    """Return what each file's message must hold."""
    atom = b"H 0 0 0 0 0 0\n"
    header = b"energy=1 Properties=species:S:1:pos:R:3:forces:R:3\n"
    frame = b"1\n" + header + atom
    expected = {}

    def put(name, content, message):
        (tmp_path / name).write_bytes(content)
        expected[name] = message

    put("billion.xyz", b"1000000000\n" + header + atom * 10, "(line 1): a frame may have at most")
    put("digits.xyz", b"9" * 100_000 + b"\n" + header + atom, "(line 1): expected the number")
    put("negative.xyz", frame + b"-3\n" + header + atom, "(line 4): a frame must have at least 1")
    put("false.xyz", b"900000\n" + header + atom + frame * 20_000, "(line 4) has 1 columns")
    put(
        "swallowed.xyz",
        b"900000\nenergy=1\n" + b"H 0 0 0\n" * 2 + b"1\nenergy=1\nH 0 0 0\n" * 40_000,
        "atom 2 (line 5) has 1 columns, atom 0 has 4",
    )
    put("missing.xyz", b"1\n" + header + b"H 0 0 0\n", "atom 0 (line 3) has 4 columns")
    wide = header.replace(b"forces:R:3", b"forces:R:1000000000")
    put("wide.xyz", b"1\n" + wide + atom, "(line 1): `Properties` must be")
    wide = header.replace(b"forces:R:3", b"forces:R:-3")
    put("narrow.xyz", b"1\n" + wide + atom, "(line 1): `Properties` must be")
    deep = b"1\nenergy=1 more='_JSON " + b"[" * 500_000 + b"'\nH 0 0 0\n"
    put("deep.xyz", deep, "frame 0 (line 1): ")
    put("binary.xyz", bytes(range(256)) * 1000, "binary.xyz")
    put("bomb.xyz.gz", gzip.compress(b"1\n" + bytes(2**26), 1), "line 2: longer than")
    put("bomb.xyz.bz2", bz2.compress(b"1\n" + bytes(2**26), 1), "line 2: longer than")
    sparse(tmp_path / "line.xyz", frame + b"1\nenergy=1 ", 2**34)
    expected["line.xyz"] = "line 5: longer than"
    sparse(tmp_path / "OUTCAR", b" vasp.6.3.0\n", 2**34)
    expected["OUTCAR"] = "line 2: longer than"
    put(
        "OUTCAR.many",
        b" vasp\n   TITEL  = PAW_PBE H 1\n   ions per type =   99999999\n",
        "(line 3): 99999999 atoms",
    )
    xml = b'<?xml version="1.0"?>\n<modeling>'
    put("vasprun.deep.xml", xml + b"<a>" * 10_000, "too many elements")
    put("vasprun.wide.xml", xml + b"<a/>" * 1_010_000, "too many elements")
    put("vasprun.text.xml.gz", gzip.compress(xml + b"<i>" + b" " * 2**26, 1), "one text of")
    laughs = b'<!DOCTYPE m [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
    put("vasprun.laughs.xml", laughs + b"<modeling>&b;</modeling>", "holds a DTD")

    arrays = {"z": np.array([1]), "R": np.zeros((2, 1, 3)), "E": np.zeros(2)}
    np.savez(tmp_path / "sound.npz", **arrays)

    def npz(name, member, content, message, method=zipfile.ZIP_STORED):
        with zipfile.ZipFile(tmp_path / "sound.npz") as archive:
            contents = {n: archive.read(n) for n in archive.namelist()} | {member: content}
        with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
            for n, c in contents.items():
                archive.writestr(n, c)
        expected[name] = message

    npz("shape.npz", "R.npy", npy_header((10**12, 1, 3)) + bytes(48), "`R.npy` declares shape")
    npz("overflow.npz", "R.npy", npy_header((2**62, 2**62, 3)), "`R.npy` declares shape")
    npz("minus.npz", "R.npy", npy_header((-1, 1, 3)), "`R.npy`")
    npz("pickle.npz", "E.npy", npy_header((2,), "|O") + pickle.dumps([Bomb()]), "pickled objects")
    row = npy_header((1, 5 * 10**6, 3)) + bytes(12 * 10**7)
    npz("row.npz", "R.npy", row, "bytes for one row", zipfile.ZIP_DEFLATED)
    npz("bz2.npz", "R.npy", bytes(2**26), "a method that NumPy never writes", zipfile.ZIP_BZIP2)
    code = b"\x93NUMPY\x01\x00\x40\x00" + b"__import__('os').abort()".ljust(63) + b"\n"
    npz("code.npz", "R.npy", code, "`R.npy`: ")
    npz("long.npz", "R.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b"(" * 50_000, "npy version")
    put("no.npz", b"PK\x03\x04", "no.npz: File is not a zip file")

    deepmd(tmp_path / "shape", npy_header((10**12, 3)) + bytes(48))
    expected["shape"] = "declares shape (1000000000000, 3)"
    deepmd(tmp_path / "pickled", npy_header((2,), "|O") + pickle.dumps([Bomb()]))
    expected["pickled"] = "pickled objects"
    deepmd(tmp_path / "naked_pickle", pickle.dumps(Bomb()))
    expected["naked_pickle"] = "magic string is not correct"
    deepmd(tmp_path / "types", npy_header((1, 3)) + bytes(24))
    (tmp_path / "types" / "type.raw").write_text("0\n" * 1_100_000)
    expected["types"] = "must hold 1 to 1000000 types"
    deepmd(tmp_path / "text", npy_header((1, 3)) + bytes(24))
    sparse(tmp_path / "text" / "type.raw", b"0\n", 2**34)
    expected["text"] = "is larger than"

    with ase.io.ulm.open(tmp_path / "absurd.traj", "w", tag="ASE-Trajectory") as writer:
        writer.write(version=1, ase_version="3", pbc=[False] * 3, cell=np.zeros((3, 3)))
        writer.write(numbers=np.array([1, 1]))
        writer.add_array("positions", (10**11, 3), float)
        writer.nmissing = 0
    expected["absurd.traj"] = "absurd.traj, frame 0: cannot be read as `traj`"
    put("pickled.traj", pickle.dumps(Bomb()), "pickled.traj")
    put("program.py", b"raise SystemExit('a program was run')", "are not read")
    document = {"ids": [1], "1": {"numbers": {"__ndarray__": [[10**12], "int64", 0]}}}
    put("absurd.json", json.dumps(document).encode(), "an array declares shape")
    sparse(tmp_path / "large.json", b'{"ids": [1], "1": {"numbers": ', 2**34)
    expected["large.json"] = "is larger than"
    return expected


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by Linux' RLIMIT_DATA")
def test_hostile_files_are_refused_in_little_memory(tmp_path):
    expected = make(tmp_path)
    paths = [str(tmp_path / name) for name in expected]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), *paths],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = {name: outcome for name, outcome, _ in map(json.loads, done.stdout.splitlines())}
    for name, message in expected.items():
        assert message in outcomes[name], (name, outcomes[name][:300])
        assert name in outcomes[name].split(":")[0] or str(tmp_path / name) in outcomes[name]


# --- damaged files


def formats(folder):
    """Make a sound file of each format; yield the file to damage and what is then read."""
    (folder / "OUTCAR").write_text(OUTCAR_HEAD + outcar_step(-25.5) + OUTCAR_END)
    (folder / "vasprun.xml").write_text(vasprun([-25.5, -26.5]))
    write_extxyz(folder / "set.extxyz", some_frames())
    for name in ("set.db", "set.json"):
        database(folder / name)
    np.savez(folder / "padded.npz", **PADDED)
    np.savez_compressed(folder / "flat.npz", **FLAT)
    deepmd_system(folder / "system", 1)
    names = ["OUTCAR", "vasprun.xml", "set.extxyz", "set.db", "set.json", "padded.npz", "flat.npz"]
    for name in names:
        yield folder / name, folder / name
    for name in ("type.raw", "set.000/coord.npy"):
        yield folder / "system" / name, folder / "system"


def damaged(sound, rng):
    content = bytearray(sound)
    for _ in range(int(rng.integers(1, 6))):
        place, length = int(rng.integers(len(content))), int(rng.integers(1, 50))
        kind = rng.integers(4)
        if kind == 0:
            content[place] = int(rng.integers(256))
        elif kind == 1 and len(content) > length:
            del content[place : place + length]
        elif kind == 2:
            letters = np.frombuffer(b"0123456789-+.eE \n\"'[]{}<>:=,", np.uint8)
            content[place:place] = rng.choice(letters, 8).tobytes()
        else:
            other = int(rng.integers(len(content)))
            content[place:place] = content[other : other + 200]
    return bytes(content)


def check_damaged_files(tmp_path, n):
    rng = np.random.default_rng(n)
    for file, path in formats(tmp_path):
        sound = file.read_bytes()
        n_refused = 0
        for _ in range(n):
            file.write_bytes(damaged(sound, rng))
            try:
                read_frames(path, units=UNITS)
            except ValueError as error:
                n_refused += 1
                message = str(error)
            else:
                continue
            assert str(tmp_path) in message
        file.write_bytes(sound)
        assert n_refused > 0, file
        assert read_frames(path, units=UNITS).frames


def test_damaged_files_are_read_or_refused(tmp_path):
    check_damaged_files(tmp_path, 60)


@pytest.mark.slow
def test_many_damaged_files_are_read_or_refused(tmp_path):
    check_damaged_files(tmp_path, 5000)
