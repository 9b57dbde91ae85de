"""The store: millions of frames in one HDF5 file, checked before they are believed."""

from eqpot.data.store.layout import FORMAT, VERSION
from eqpot.data.store.reading import FrameStore
from eqpot.data.store.writing import write_store

__all__ = ["FORMAT", "VERSION", "FrameStore", "write_store"]
