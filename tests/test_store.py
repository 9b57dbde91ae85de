"""Laws of stores in training: any order, any process, any part, the same frames; nothing foreign.

Workers read the very file that was opened and verified, without verifying it again. A forged store,
whatever its checksum says, is refused before anything is allocated.
"""

import multiprocessing
import os
import pickle

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eqpot import keys
from eqpot.data import (
    Concatenation,
    FrameStore,
    GraphDataset,
    Reweighted,
    Subset,
    n_atoms_of,
    write_store,
)
from eqpot.data.store.columns import Column, has_checksum
from test_data import assert_same_frame, sealed, some_frames
from test_data_commands import trajectory


@pytest.fixture
def store_path(tmp_path):
    path = tmp_path / "set.h5"
    write_store(path, some_frames())
    return path


# --- any order, any process


@pytest.mark.parametrize("verify", [True, False])
def test_any_order_gives_the_same_frames(tmp_path, monkeypatch, verify):
    # chunks and buffers so small that frames lie across their borders
    monkeypatch.setattr("eqpot.data.store.writing.CHUNK_BYTES", 200)
    monkeypatch.setattr("eqpot.data.store.writing._BUFFER_BYTES", 3000)
    monkeypatch.setattr("eqpot.data.store.reading._ATOMS_AT_ONCE", 50)
    monkeypatch.setattr("eqpot.data.store.reading._INFO_AT_ONCE", 100)
    frames = some_frames() * 7
    write_store(tmp_path / "set.h5", frames)
    with FrameStore(tmp_path / "set.h5", verify=verify) as store:
        order = np.random.default_rng(0).permutation(len(frames))
        for index in order:
            assert_same_frame(store[index], frames[index])
        for found, frame in zip(store, frames, strict=True):
            assert_same_frame(found, frame)
        assert store.config_types() == {frame.config_type for frame in frames}
        assert store.n_atoms.tolist() == [len(frame) for frame in frames]


@given(st.binary(max_size=300), st.booleans())
def test_checksums_are_those_of_hdf5(tmp_path_factory, content, ones):
    # HDF5 writes the checksum behind each chunk; all bits set are the corner of its sums
    content = b"\xff" * len(content) if ones else content
    path = tmp_path_factory.getbasetemp() / "sums.h5"
    data = np.frombuffer(content + b"x", dtype=np.uint8)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=data, chunks=data.shape, fletcher32=True)
        stored = file["x"].id.read_direct_chunk((0,))[1]
    assert has_checksum(stored)
    assert not has_checksum(stored[:-1] + bytes([stored[-1] ^ 1]))


def frames_of(store):
    return [store[index].energy for index in (2, 0, 1)]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_without_verifying_again(tmp_path, monkeypatch, method):
    path = tmp_path / "set.h5"
    write_store(path, trajectory(3))
    with FrameStore(path) as store:
        assert store[0].energy == 0.0  # open before the fork

        def forbidden(*arguments):
            raise AssertionError("verified again")

        monkeypatch.setattr("eqpot.data.store.reading.sha256_of", forbidden)
        monkeypatch.setattr("eqpot.data.store.reading.read_structure", forbidden)
        if method == "fork":
            with multiprocessing.get_context("fork").Pool(2) as pool:
                assert pool.map(frames_of, [store] * 4) == [[2.0, 0.0, 1.0]] * 4
        copy = pickle.loads(pickle.dumps(store))
        assert frames_of(copy) == [2.0, 0.0, 1.0]
        assert len(pickle.dumps(store)) < 20_000
        # who forks with an open file reads at places of its own
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, repr(frames_of(store)).encode())
            os._exit(0)
        assert frames_of(store) == [2.0, 0.0, 1.0]
        os.waitpid(child, 0)
        assert os.read(reader, 100) == b"[2.0, 0.0, 1.0]"
        os.close(reader)
        os.close(writer)


def test_a_worker_refuses_a_file_that_has_replaced_the_other(tmp_path):
    path = tmp_path / "set.h5"
    write_store(path, trajectory(3))
    with FrameStore(path) as store:
        assert store[1].energy == 1.0
        pickled = pickle.dumps(store)
        write_store(path, trajectory(3, seed=1))
        assert store[1].energy == 1.0  # the opened file lives on
        with pytest.raises(ValueError, match=r"set.h5: was replaced since it was opened"):
            pickle.loads(pickled)[1]


def test_a_store_leaves_no_file_open(store_path):
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        store = FrameStore(store_path)
        store[0]
        store.close()
        store.close()
        store[0]  # opened again
        del store
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


# --- parts


def test_parts_of_sets_are_the_frames_they_name(tmp_path):
    first, second = trajectory(5), trajectory(4, seed=1, config_type="slab", weight=2.0)
    write_store(tmp_path / "a.h5", first)
    with FrameStore(tmp_path / "a.h5") as store:
        subset = Subset(store, [4, 0, 2])
        joined = Concatenation([subset, [], second])
        frames = [first[4], first[0], first[2], *second]
        assert len(joined) == len(frames)
        for index in (*range(len(frames)), -1, -len(frames)):
            assert_same_frame(joined[index], frames[index])
        assert [frame.energy for frame in joined] == [frame.energy for frame in frames]
        assert n_atoms_of(joined).tolist() == [3] * 7
        assert Subset(joined, [6, 1]).n_atoms.tolist() == [3, 3]
        weighted = Reweighted(joined, {"slab": 3.0})
        assert [frame.weight for frame in weighted] == [1.0] * 3 + [6.0] * 4
        assert n_atoms_of(weighted).tolist() == [3] * 7
        graph = GraphDataset(weighted, 3.0)[5]
        assert graph[keys.WEIGHT].item() == 6.0
        assert_same_frame(pickle.loads(pickle.dumps(weighted))[1], frames[1])
        for index in (7, -8):
            with pytest.raises(IndexError, match=f"there is no frame {index}, there are 7"):
                joined[index]
        with pytest.raises(IndexError):
            subset[3]
    with pytest.raises(IndexError, match=r"indices must lie in 0..4, got 0..5"):
        Subset(store, [0, 5])
    assert len(Concatenation([])) == 0


def test_atom_counts_of_stores_are_known_without_reading(store_path, monkeypatch):
    with FrameStore(store_path) as store:
        expected = [len(frame) for frame in some_frames()]
        monkeypatch.setattr(Column, "rows", None)
        assert n_atoms_of(Subset(Concatenation([store, store]), range(12))).tolist() == expected


# --- forged stores


def recreated(name, *, chunks=None, dtype=None, filters=None, opaque=False, data=None):
    """Return a change that makes a dataset anew by the low-level interface."""

    def change(file):
        old = file[name][:] if data is None else data
        rows = file[name].chunks if chunks is None else chunks
        del file[name]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk(rows)
        if filters is None:
            properties.set_fletcher32()
        for code in filters or ():
            properties.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (1, 2))
        space = h5py.h5s.create_simple(old.shape, (h5py.h5s.UNLIMITED, *old.shape[1:]))
        kind = h5py.h5t.py_create(old.dtype if dtype is None else np.dtype(dtype), logical=True)
        made = h5py.h5d.create(file.id, name.encode(), kind, space, properties)
        if dtype is None and not opaque:
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(old))

    return change


def without_checksum(file):
    chunk = file["energy"].id.read_direct_chunk((0,))[1]
    file["energy"].id.write_direct_chunk((0,), chunk[:-4], filter_mask=1)


def many_links(file):
    for k in range(1000):
        file[f"more{k}"] = h5py.SoftLink("/energy")


def linked_provenance(file):
    file.attrs["provenance"] = "x" * 50_000


def nested_provenance(file):
    file.attrs["provenance"] = "[" * 50_000


def wrong_chunk(file):
    """Leave the last rows of a dataset without their chunk."""
    dataset = file["info"]
    dataset.resize(len(dataset) + 10 * dataset.chunks[0], axis=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (recreated("cell", chunks=(64, 3, 1)), r"`cell` must have chunks of whole rows"),
        (recreated("energy", chunks=(2**40,), opaque=True), "`energy` declares"),
        (recreated("energy", filters=[32000, 32015]), r"Fletcher32 alone, has \[32000, 32015\]"),
        (recreated("energy", filters=[]), r"Fletcher32 alone, has \[\]"),
        (recreated("energy", dtype=">f8"), "`energy` must be of type float64, is >f8"),
        (recreated("energy", dtype=h5py.ref_dtype), "`energy` must be of type float64, is object"),
        (without_checksum, "`energy` is damaged .chunk 0 has no checksum"),
        (many_links, "holds 1013 datasets, must hold 13"),
        (linked_provenance, "`provenance` cannot be read"),
        (nested_provenance, "`provenance` cannot be read"),
        (wrong_chunk, "`info` declares .* stores|`info` is damaged"),
        (lambda file: file.attrs.modify("provenance", "[1]"), "`provenance` must be a dictionary"),
        (lambda file: file["labels"].resize(5, axis=0), "`labels` must have 12 rows, has 5"),
        (lambda file: file["offsets"].resize(0, axis=0), "`offsets` must have 13 rows, has 0"),
    ],
)
def test_forged_stores_are_refused(store_path, change, message):
    sealed(store_path, change)
    with pytest.raises(ValueError, match=message) as caught:
        FrameStore(store_path)
    assert str(store_path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"x", "stored frame 0: Expecting"),
        (b"[", "stored frame 0: "),
        (b"9", "stored frame 0: `config_type` or `source` is missing"),
    ],
)
def test_wrong_texts_within_a_sound_store_are_refused(store_path, text, message):
    def change(file):
        end = file["info_offsets"][1]
        file["info"][:end] = np.frombuffer(text.ljust(end), np.uint8)

    sealed(store_path, change)
    with FrameStore(store_path) as store:
        with pytest.raises(ValueError, match=message):
            store[0]
        with pytest.raises(ValueError, match=message):
            store.config_types()


def test_empty_stores_are_refused(store_path):
    def change(file):
        for name in file:
            file[name].resize(1 if "offsets" in name else 0, axis=0)

    sealed(store_path, change)
    with pytest.raises(ValueError, match=r"must have at least 2 rows|no chunk has its checksum"):
        FrameStore(store_path)
