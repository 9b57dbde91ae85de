"""Laws 41 and 45 for exports: what a file says of itself is read without its code, or refused."""

import json
import zipfile

import pytest
import torch

import eqpot.compilation
from eqpot.cli.info import export_summary
from eqpot.compilation import load_compiled, read_compiled_metadata
from eqpot.export import METADATA, load_torchscript, read_torchscript_metadata
from eqpot.files import describe
from potentials import soft_potential

KINDS = {
    "eqpot-torchscript": (".pt", read_torchscript_metadata, load_torchscript),
    "eqpot-compiled": (".pt2", read_compiled_metadata, load_compiled),
}


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


def write(path, kind, text, compression=zipfile.ZIP_STORED):
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


def test_metadata_of_a_later_eqpot_is_read(tmp_path, kind, metadata):
    suffix, read, load = KINDS[kind]
    path = tmp_path / f"p{suffix}"
    metadata["model"]["settings"]["of_a_later_eqpot"] = 1
    metadata |= {"of_a_later_eqpot": {}, "processor": "one", "format_version": 1000}
    write(path, kind, json.dumps(metadata))
    assert read(path) == metadata
    assert "H C O Si" in "\n".join(export_summary(path, metadata))
    if kind == "eqpot-compiled":
        with pytest.raises(ValueError, match="of version 1000, this eqpot runs"):
            load(path, trust=True)


def test_a_package_of_settings_that_are_not_known_is_not_run(tmp_path):
    path = tmp_path / "p.pt2"
    potential = soft_potential()
    metadata = {
        **describe(potential),
        **{
            "format": "eqpot-compiled",
            "native_sha256": None,
            "torch_version": "2",
            "device": "cpu",
        },
        "processor": torch.backends.cpu.get_cpu_capability(),
        "format_version": eqpot.compilation._VERSION,
    }
    metadata["model"]["settings"] = metadata["model"]["settings"] | {"unheard_of": 1}
    write(path, "eqpot-compiled", json.dumps(metadata))
    with pytest.raises(ValueError, match=r"`model` or `dtype` is wrong: .*unheard_of"):
        load_compiled(path, trust=True)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("r_max", -1.0, "`r_max` is wrong"),
        ("elements", ["H", "C", "O", "Au"], "`elements` must be those of `atomic_numbers`"),
        ("atomic_numbers", [1, 6, 8, 999], "`atomic_numbers.3` is wrong"),
        ("torch_version", None, "`torch_version` is wrong"),
        ("torch_version", "\x1b[2J", "`torch_version` is wrong: .*printable"),
        ("model", {"kind": "gaunt", "settings": {"n_layers": "2"}}, "`model.settings.n_layers"),
        ("format", "eqpot-other", "that eqpot exported"),
    ],
)
def test_wrong_values_are_named(tmp_path, kind, metadata, field, value, message):
    path = tmp_path / f"p{KINDS[kind][0]}"
    metadata[field] = value
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
    around = [*range(64), *range(whole.index(b"PK\x01\x02"), len(whole))]
    places = [(place, 1 << bit) for place in around for bit in range(8)]
    places += [(place, 0x55) for place in range(64, len(whole), 7)]
    n_sound = 0
    for place, mask in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
        try:
            found = read(path)
        except ValueError as error:
            n_sound += str(path) in str(error)
        else:
            n_sound += found == metadata  # what nobody reads
    assert n_sound == len(places)


def test_damage_to_what_is_not_read_is_told_too(tmp_path, kind, metadata):
    path = tmp_path / f"p{KINDS[kind][0]}"
    write(path, kind, json.dumps(metadata))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("p/data/weights", bytes(range(256)))
    content = path.read_bytes()
    place = content.index(bytes(range(256)))
    path.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    check_refused(path, kind, "damaged: p/data/weights does not match its checksum; export the")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_could_fill_the_memory_is_not_unpacked(tmp_path, kind, metadata, method):
    path = tmp_path / f"p{KINDS[kind][0]}"
    write(path, kind, json.dumps(metadata), method)
    check_refused(path, kind, "is damaged: .* is compressed")


def test_what_would_take_hours_to_check_is_refused(tmp_path, kind, metadata):
    path = tmp_path / f"p{KINDS[kind][0]}"
    write(path, kind, json.dumps(metadata))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p/code/zeros", bytes(10**6))
    check_refused(path, kind, "it unpacks to more than 50 times its size")
