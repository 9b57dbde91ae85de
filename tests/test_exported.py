"""Laws 41 and 45 for exports: what a file says of itself is read without its code, or refused."""

import json
import zipfile

import pytest
import torch

from eqpot.compilation import load_compiled, read_compiled_metadata
from eqpot.export import METADATA, load_torchscript, read_torchscript_metadata
from eqpot.files import describe
from potentials import soft_potential

KINDS = {
    "eqpot-torchscript": (".pt", read_torchscript_metadata, load_torchscript),
    "eqpot-compiled": (".pt2", read_compiled_metadata, load_compiled),
}
INNER = "model.settings."


@pytest.fixture(params=list(KINDS))
def kind(request):
    return request.param


@pytest.fixture
def metadata(kind):
    found = {
        **describe(soft_potential()),
        "format": kind,
        "native_sha256": None,
        "torch_version": torch.__version__,
    }
    if kind == "eqpot-compiled":
        found |= {"device": "cpu", "processor": torch.backends.cpu.get_cpu_capability()}
    return json.loads(json.dumps(found))


def write(path, kind, text, compression=zipfile.ZIP_DEFLATED):
    """Write an export that holds nothing but metadata, as text."""
    name, content = f"p/extra/{METADATA}", text
    if kind == "eqpot-compiled":
        name, content = "p/data/c.wrapper_metadata.json", json.dumps({"eqpot": text})
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(name, content)


def check_refused(path, kind, message):
    _, read, load = KINDS[kind]
    for function in (read, lambda path: load(path, trust=True)):
        with pytest.raises(ValueError, match=message) as found:
            function(path)
        assert str(path) in str(found.value)


def test_metadata_is_read_whole(tmp_path, kind, metadata):
    suffix, read, _ = KINDS[kind]
    path = tmp_path / f"p{suffix}"
    metadata["of_a_later_eqpot"] = 1
    write(path, kind, json.dumps(metadata))
    assert read(path) == metadata


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("r_max", -1.0, "`r_max` is wrong"),
        ("dtype", "float16", "`dtype` is wrong"),
        ("elements", ["H"], "`elements` must have 4 values, has 1"),
        ("atomic_numbers", [1, 6, 8, 999], "`atomic_numbers.3` is wrong"),
        ("reference_energies", [], "`reference_energies` must have 4 values, has 0"),
        ("torch_version", None, "`torch_version` is wrong"),
        (f"{INNER}n_layers", 10**9, "`model.settings.n_layers` is wrong"),
        (f"{INNER}unheard_of", 1, "`model.settings.unheard_of` is wrong"),
        ("format", "eqpot-other", "that eqpot exported"),
    ],
)
def test_wrong_values_are_named(tmp_path, kind, metadata, field, value, message):
    path = tmp_path / f"p{KINDS[kind][0]}"
    inner = field.startswith(INNER)
    place = metadata["model"]["settings"] if inner else metadata
    place[field.removeprefix(INNER)] = value
    write(path, kind, json.dumps(metadata))
    check_refused(path, kind, message)


@pytest.mark.parametrize("field", ["r_max", "model", "elements", "native_sha256"])
def test_missing_values_are_named(tmp_path, kind, metadata, field):
    path = tmp_path / f"p{KINDS[kind][0]}"
    del metadata[field]
    write(path, kind, json.dumps(metadata))
    check_refused(path, kind, f"`{field}` is wrong")


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "null", '{"format": []}', "[" * 100_000])
def test_other_texts_are_refused(tmp_path, kind, text):
    path = tmp_path / f"p{KINDS[kind][0]}"
    write(path, kind, text)
    check_refused(path, kind, "that eqpot exported")


def test_damage_is_told(tmp_path, kind, metadata):
    suffix, read, _ = KINDS[kind]
    path = tmp_path / f"p{suffix}"
    write(path, kind, json.dumps(metadata))
    whole = path.read_bytes()
    n_sound = 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            found = read(path)
        except ValueError as error:
            n_sound += str(path) in str(error)
        else:
            n_sound += found == metadata  # a byte that nobody reads
    assert n_sound == len(range(0, len(whole), 7))


def test_metadata_that_would_fill_the_memory_is_not_unpacked(tmp_path, kind):
    path = tmp_path / f"p{KINDS[kind][0]}"
    write(path, kind, " " * (2**26 + 1))
    assert path.stat().st_size < 2**20
    check_refused(path, kind, "is damaged: .* bytes")
