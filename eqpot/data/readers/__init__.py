"""Readers: files and folders of many formats to frames, with the names that supplied their labels.

Every format turns what it holds into records: numbers by the names they have in the file. One
finder then tells which of them are labels, converts units and makes frames, so that all formats
follow the same rules.
"""

from eqpot.data.readers.keys import LabelKeys
from eqpot.data.readers.labels import LABEL_NAMES
from eqpot.data.readers.reading import Reading, iter_frames, read_frames
from eqpot.data.readers.report import LabelReport

__all__ = ["LABEL_NAMES", "LabelKeys", "LabelReport", "Reading", "iter_frames", "read_frames"]
