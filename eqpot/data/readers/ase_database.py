"""Databases of ASE, SQLite or JSON, read as plain numbers: nothing in them is turned into objects.

ASE's own reader makes constraints, calculators and other objects out of what a row names. Here a
row is its columns, its key-value pairs and those entries of its data that are numbers or texts.
"""

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eqpot import keys
from eqpot.data.frames import Frame
from eqpot.data.readers.compression import unpacked
from eqpot.data.readers.labels import LabelFinder
from eqpot.data.readers.records import LARGEST_N_ATOMS, Record, merged

SQLITE_MAGIC: Final = b"SQLite format 3\0"
_LARGEST_JSON: Final = 2**28
_LARGEST_BLOB: Final = 2**28
_COLUMNS: Final = (
    "numbers", "positions", "cell", "pbc", "energy", "free_energy", "forces", "stress",
    "key_value_pairs", "data",
)  # fmt: skip


def database_frames(path: Path, labels: LabelFinder) -> Iterator[Frame]:
    """Yield the rows of a SQLite database of ASE, in the order of their ids.

    Raises
    ------
    ValueError
        If the file is no database of ASE or damaged, or a row is not sound.
    """
    with unpacked(path) as plain:
        connection = _connect(plain)
        try:
            _check_schema(connection)
            query = f"SELECT {', '.join(_COLUMNS)} FROM systems ORDER BY id"
            for index, row in enumerate(connection.execute(query)):
                try:
                    record = _record(dict(zip(_COLUMNS, row, strict=True)))
                except (ValueError, TypeError, RecursionError, OverflowError) as error:
                    raise ValueError(f"{path}, frame {index}: {error}") from error
                yield labels.frame(record, index)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: cannot be read as a database of ASE ({error})") from error
        finally:
            connection.close()


def json_frames(path: Path, labels: LabelFinder) -> Iterator[Frame]:
    """Yield the rows of a JSON database of ASE.

    Raises
    ------
    ValueError
        As :func:`database_frames`, or if the file is larger than 256 MiB: JSON cannot be streamed.
    """
    with unpacked(path) as plain:
        if plain.stat().st_size > _LARGEST_JSON:
            raise ValueError(f"{path}: is larger than {_LARGEST_JSON} bytes; use a .db file")
        try:
            document = json.loads(plain.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(document, dict) or not isinstance(document.get("ids"), list):
        raise ValueError(f"{path}: is no JSON database of ASE (it has no `ids`)")
    for index, number in enumerate(document["ids"]):
        try:
            record = _record(_json_row(document, number))
        except (ValueError, TypeError, RecursionError, OverflowError) as error:
            raise ValueError(f"{path}, frame {index}: {error}") from error
        yield labels.frame(record, index)


def _connect(path: Path) -> sqlite3.Connection:
    uri = path.resolve().as_uri() + "?mode=ro"
    connection = sqlite3.connect(uri, uri=True)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_BLOB)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "query_only=ON", "mmap_size=0"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _check_schema(connection: sqlite3.Connection) -> None:
    """Check that ``systems`` is a plain table: a view or a computed column could run for ever."""
    query = "SELECT type FROM sqlite_master WHERE name = 'systems'"
    kinds = [row[0] for row in connection.execute(query)]
    if kinds != ["table"]:
        raise sqlite3.DatabaseError("there is no table `systems`")
    columns = {str(row[1]): row for row in connection.execute("PRAGMA table_xinfo(systems)")}
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise sqlite3.DatabaseError(f"`systems` lacks the columns {', '.join(missing)}")
    computed = [name for name, row in columns.items() if row[6] != 0]
    if computed:
        raise sqlite3.DatabaseError(f"`systems` computes its columns {', '.join(computed)}")


def _record(row: Mapping[str, Any]) -> Record:
    numbers = _array(row["numbers"], "numbers", np.int32)
    n_atoms = len(numbers)
    if n_atoms > LARGEST_N_ATOMS:
        raise ValueError(f"a frame may have at most {LARGEST_N_ATOMS} atoms, got {n_atoms}")
    columns: dict[str, Any] = {name: row.get(name) for name in (keys.ENERGY, "free_energy")}
    for name in (keys.FORCES, keys.STRESS):
        if row.get(name) is not None:
            columns[name] = _array(row[name], name, np.float64)
    if keys.FORCES in columns:
        columns[keys.FORCES] = _vectors(columns[keys.FORCES], keys.FORCES, n_atoms)
    pairs = _decoded(row.get("key_value_pairs"))
    data = _decoded(row.get("data"))
    data = {
        name: value
        for name, value in data.items()
        if isinstance(value, int | float | str | np.ndarray)
    }
    bits = row["pbc"]
    if isinstance(bits, int):
        bits = [bool(bits & 2**axis) for axis in range(3)]
    return Record(
        numbers.astype(np.int64),
        _vectors(_array(row["positions"], "positions", np.float64), "positions", n_atoms),
        _vectors(_array(row["cell"], "cell", np.float64), "cell", 3),
        np.asarray(bits, dtype=np.bool_),
        merged(pairs, data, columns),
    )


def _array(value: Any, name: str, dtype: Any) -> NDArray[Any]:
    if isinstance(value, bytes):
        if len(value) % np.dtype(dtype).itemsize:
            raise ValueError(f"`{name}` has {len(value)} bytes, which is no whole number of values")
        return np.frombuffer(value, np.dtype(dtype).newbyteorder("<"))
    if isinstance(value, list | np.ndarray):
        array = np.asarray(value)
        if array.dtype.kind in "iuf":
            return array
    raise ValueError(f"`{name}` must be numbers, got {str(value)[:60]!r}")


def _vectors(array: NDArray[Any], name: str, n: int) -> NDArray[Any]:
    if array.size != 3 * n:
        raise ValueError(f"`{name}` must have shape ({n}, 3), has {array.size} numbers")
    return array.reshape(n, 3)


def _decoded(value: Any) -> dict[str, Any]:
    """Return a dictionary from JSON text, or from ASE's JSON with arrays appended in binary."""
    if value is None or isinstance(value, dict):
        decoded = value or {}
        binary = b""
    elif isinstance(value, str):
        decoded, binary = json.loads(value) if value else {}, b""
    elif isinstance(value, bytes):
        if len(value) < 8:
            raise ValueError("`data` is damaged")
        offset = int.from_bytes(value[:8], "little")
        decoded, binary = json.loads(value[offset:].decode("utf-8")), value
    else:
        raise ValueError(f"`data` must be a text, got {type(value).__name__}")
    if not isinstance(decoded, dict):
        raise ValueError("`data` and `key_value_pairs` must be dictionaries")
    return {str(name): _plain(entry, binary) for name, entry in decoded.items()}


def _json_row(document: Mapping[str, Any], number: Any) -> dict[str, Any]:
    row = document.get(str(number))
    if not isinstance(row, dict):
        raise ValueError(f"there is no row `{number}`")
    plain = {name: _plain(row.get(name), b"") for name in _COLUMNS}
    if isinstance(plain["cell"], dict):
        # later versions of ASE write a cell as an object with its array in it
        plain["cell"] = _plain(plain["cell"].get("array"), b"")
    return plain


def _plain(value: Any, binary: bytes) -> Any:
    """Return what a value says, arrays as arrays; other objects stay the dictionaries they are."""
    if not isinstance(value, dict) or "__ndarray__" not in value:
        return value
    entry = value["__ndarray__"]
    if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[0], list):
        raise ValueError("an array is damaged")
    shape, name, content = entry
    if str(name) not in ("float64", "float32", "int64", "int32", "int8", "bool", "uint8"):
        return None
    dtype = np.dtype(str(name)).newbyteorder("<")
    size = math.prod(int(length) for length in shape)
    if isinstance(content, list):
        array = np.asarray(content, dtype=dtype)
    else:
        start = int(content)
        array = np.frombuffer(binary[start : start + size * dtype.itemsize], dtype)
    if size < 0 or array.size != size:
        raise ValueError(f"an array declares shape {shape}, but has {array.size} numbers")
    return array.reshape([int(length) for length in shape])
