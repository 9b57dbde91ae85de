"""Native files: bit-exact round trip; foreign, truncated, damaged and later files are refused."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from ase.build import molecule

from eqpot.durable import write_durably
from eqpot.export import export_torchscript
from eqpot.files import load_potential, read_header, save_potential
from potentials import graph_of, random_potential, soft_potential


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "random.eqpot"
    potential = soft_potential(torch.float32)
    save_potential(
        path,
        potential,
        raw_weights=soft_potential(torch.float32, seed=1),
        # a text that imitates the place of the checksum must not confuse the reader
        provenance={"data_sha256": {"a.xyz": "0" * 64}, "eqpot": '{"file_sha256":"' + "0" * 64},
        errors={"validation": {"energy": 1.25}},
    )
    return path, potential


def same_bits(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_round_trip_keeps_every_bit(written):
    path, potential = written
    loaded = load_potential(path)
    assert same_bits(dict(loaded.named_parameters()), dict(potential.named_parameters()))
    assert loaded.reference_energies == potential.reference_energies
    assert (loaded.scale, loaded.r_max) == (potential.scale, potential.r_max)
    assert loaded.model.avg_num_neighbors == potential.model.avg_num_neighbors
    raw = load_potential(path, weights="raw")
    expected = soft_potential(torch.float32, seed=1)
    assert same_bits(dict(raw.named_parameters()), dict(expected.named_parameters()))


def test_constants_are_made_in_float64(written):
    path, _ = written
    loaded = dict(load_potential(path, dtype=torch.float64).named_buffers())
    fresh = dict(soft_potential().named_buffers())
    assert same_bits(loaded, fresh)
    assert loaded["repulsion.radii"].tolist() == [0.31, 0.76, 0.66, 1.11]


def test_written_twice_is_the_same_file(written, tmp_path):
    path, _ = written
    header = read_header(path)
    save_potential(
        tmp_path / "again.eqpot",
        load_potential(path),
        raw_weights=load_potential(path, weights="raw"),
        provenance=header["provenance"],
        errors=header["errors"],
    )
    assert (tmp_path / "again.eqpot").read_bytes() == path.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["again.eqpot"]  # no stray files


def test_loading_leaves_the_random_state_alone(written):
    before = torch.get_rng_state()
    load_potential(written[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_header_says_what_the_potential_is(written):
    header = read_header(written[0])
    assert header["elements"] == ["H", "C", "O", "Si"]
    assert header["dtype"] == "float32" and header["r_max"] == 4.0
    assert header["errors"] == {"validation": {"energy": 1.25}}


def test_every_flipped_byte_is_refused(written, tmp_path):
    data = bytearray(written[0].read_bytes())
    header_end = 8 + int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(0)
    places = [*rng.integers(header_end, len(data), 100), *rng.integers(0, header_end, 100)]
    places += [header_end - 1, *range(8)]
    damaged = tmp_path / "damaged.eqpot"
    for place in places:
        old = data[place]
        data[place] = old ^ int(rng.integers(1, 256))
        damaged.write_bytes(data)
        data[place] = old
        with pytest.raises(ValueError, match=r"damaged\.eqpot") as caught:
            load_potential(damaged)
        if place >= header_end:
            assert "record `" in str(caught.value)
    damaged.write_bytes(data)
    load_potential(damaged)  # whole again


def test_truncated_and_prolonged_files_are_refused(written, tmp_path):
    data = written[0].read_bytes()
    path = tmp_path / "cut.eqpot"
    for length in (0, 1, 8, 9, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"cut\.eqpot: .*(truncated|empty|not a potential)"):
            load_potential(path)
    path.write_bytes(data + b"PK\x05\x06" + bytes(18))
    with pytest.raises(ValueError, match="longer than its header says"):
        load_potential(path)


class Runs:
    """Would print when unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


def foreign_files(folder):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Runs()))
    saved = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, saved)
    export_torchscript(soft_potential(), folder / "script.pt", "float64")
    return {
        "pickle": (pickle.dumps(Runs()), "pickle"),
        "zip": (buffer.getvalue(), "zip archive"),
        "torch.save": (saved.getvalue(), "zip archive"),
        "torchscript": ((folder / "script.pt").read_bytes(), "zip archive"),
        "text": (b"model: gaunt\n" * 10, "does not begin like"),
        "other safetensors": (
            safetensors.torch.save({"x": torch.zeros(1)}, metadata={"format": "pt"}),
            "not a potential",
        ),
        "huge header": ((2**60).to_bytes(8, "little") + b"{}", "not a potential"),
        "list": ((2).to_bytes(8, "little") + b"{]", "damaged"),
    }


def test_foreign_files_are_refused_unopened(tmp_path, capsys):
    path = tmp_path / "foreign.eqpot"
    for name, (data, message) in foreign_files(tmp_path).items():
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message) as caught:
            load_potential(path)
        assert "foreign.eqpot" in str(caught.value), name
    assert "unpickled" not in capsys.readouterr().out


def rewritten(path, change):
    """Return the bytes of a file with its document changed and its checksum right again."""
    import hashlib

    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    document = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["eqpot"])
    change(document)
    document = {"file_sha256": "0" * 64} | {k: v for k, v in document.items() if k != "file_sha256"}
    text = json.dumps(document, separators=(",", ":"))
    made = safetensors.torch.save(safetensors.torch.load(data), metadata={"eqpot": text})
    return made.replace(b"0" * 64, hashlib.sha256(made).hexdigest().encode(), 1)


def test_later_format_is_refused_by_version(written, tmp_path):
    path = tmp_path / "later.eqpot"
    path.write_bytes(rewritten(written[0], lambda d: d.update(format_version=5, new_field=1)))
    with pytest.raises(ValueError, match=r"format version 5, .* reads up to 4; install a later"):
        read_header(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: None, None),
        (lambda d: d["model"]["settings"].update(n_features=10**9), "n_features"),
        (lambda d: d["model"]["settings"].update(n_features=9), r"model\.embedding"),
        (lambda d: d["model"]["settings"].update(l_hidden=3), "`l_hidden` must not be above"),
        (lambda d: d["model"]["settings"].update(l_along=2), "`l_along` must not be above"),
        (lambda d: d["model"]["settings"].pop("l_along"), r"settings\.l_along` is missing"),
        (lambda d: d["model"]["settings"].pop("envelope_power"), r"envelope_power` is missing"),
        (lambda d: d["model"]["settings"].pop("final_gate"), r"final_gate` is missing"),
        (lambda d: d["model"]["settings"].update(final_gate=False), "do not fit"),
        (lambda d: d.update(surprise=1), "surprise"),
        (lambda d: d.pop("r_max"), "r_max"),
        (lambda d: d.update(r_max=-1.0), "r_max"),
        (lambda d: d.update(r_max="4"), "r_max"),
        (lambda d: d["model"].update(kind="os.system"), r"model\.kind"),
        (lambda d: d.update(reference_energies=[0.0]), "reference_energies"),
        (lambda d: d.update(atomic_numbers=[1, 6, 8, 700]), "atomic_numbers"),
        (lambda d: d["model"]["settings"].update(n_layers=3), "do not fit"),
    ],
)
def test_schema_is_checked_even_where_the_checksum_fits(written, tmp_path, change, message):
    path = tmp_path / "crafted.eqpot"
    path.write_bytes(rewritten(written[0], change))
    if message is None:
        load_potential(path)
        return
    with pytest.raises(ValueError, match=message) as caught:
        load_potential(path)
    assert "crafted.eqpot" in str(caught.value)


def save_as_version(version, tmp_path, **changes):
    """Save a random potential, and once more as a version wrote it; return both files."""
    now, earlier = tmp_path / "now.eqpot", tmp_path / "earlier.eqpot"
    save_potential(now, random_potential(**changes))

    def change(document):
        document["format_version"] = version
        for name, since in (("envelope_power", 2), ("l_along", 3), ("final_gate", 4)):
            if version < since:
                del document["model"]["settings"][name]

    earlier.write_bytes(rewritten(now, change))
    return now, earlier


def test_version_1_has_no_envelope_and_means_6(tmp_path):
    files = save_as_version(1, tmp_path, envelope_power=3)
    x = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)[None]
    values = []
    for path in files:
        potential = load_potential(path, dtype=torch.float64)
        values.append(potential.model.first.radial(x * potential.r_max))
    ratio = (1 - 28 * x**6 + 48 * x**7 - 21 * x**8) / (1 - 10 * x**3 + 15 * x**4 - 6 * x**5)
    torch.testing.assert_close(values[1], values[0] * ratio)


def test_version_2_has_no_fields_along_edges_and_means_0(tmp_path):
    files = save_as_version(2, tmp_path, l_along=1)
    with_fields, without = (load_potential(path, dtype="float64") for path in files)
    expected = random_potential(l_along=0)
    expected.load_state_dict(without.state_dict())
    graph = graph_of(molecule("CH3CH2OH"), without.r_max)
    assert torch.equal(without(graph)["energy"], expected(graph)["energy"])
    assert not torch.allclose(with_fields(graph)["energy"], without(graph)["energy"], rtol=1e-9)


def test_version_3_says_nothing_of_the_gate_and_has_it(tmp_path):
    gated, earlier = (load_potential(p, dtype="float64") for p in save_as_version(3, tmp_path))
    graph = graph_of(molecule("CH3CH2OH"), gated.r_max)
    assert torch.equal(gated(graph)["energy"], earlier(graph)["energy"])
    with pytest.raises(ValueError, match=r"do not fit the model.*readouts\.0\.linear"):
        load_potential(save_as_version(3, tmp_path, final_gate=False)[1])


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_potential(tmp_path / "absent.eqpot")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load_potential(tmp_path)


def test_what_cannot_be_saved_leaves_the_old_file(tmp_path):
    path = tmp_path / "kept.eqpot"
    path.write_bytes(b"old")
    potential = soft_potential()
    with pytest.raises(ValueError, match="plain JSON"):
        save_potential(path, potential, errors={"rmse": float("nan")})
    with pytest.raises(ValueError, match="`raw_weights`"):
        save_potential(path, potential, raw_weights=soft_potential(n_layers=1))
    next(potential.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        save_potential(path, potential)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.eqpot"]


def test_unwritable_folder_names_file_and_size(tmp_path):
    with pytest.raises(OSError, match=r"x\.bin: cannot write 3 bytes"):
        write_durably(tmp_path / "absent" / "x.bin", b"abc")


def test_wrong_arguments(written):
    with pytest.raises(ValueError, match="`dtype`"):
        load_potential(written[0], dtype="float16")
    with pytest.raises(ValueError, match="`weights`"):
        load_potential(written[0], weights="best")
