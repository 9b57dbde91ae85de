"""Many files as one stream of frames, parsed by several processes, in order and constant memory."""

import contextlib
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from eqpot.data.frames import Frame
from eqpot.data.readers.extxyz import Chunk, extxyz_chunks, parse_chunk
from eqpot.data.readers.keys import LabelKeys
from eqpot.data.readers.reading import (
    check_something_was_found,
    file_format,
    label_finder,
    open_frames,
)
from eqpot.data.readers.report import LabelReport
from eqpot.data.suffixes import split_suffix

_BATCH_CHARACTERS: Final = 2**18
_SMALL_FILE: Final = 2**23
_WAITING: Final = 4
"""Batches that wait for each worker; they bound the memory."""


@dataclass(frozen=True)
class ReadOptions:
    """How files are read.

    Attributes
    ----------
    keys
        Names of labels.
    units
        Declared units.
    config_type
        Of frames that name none.
    require_labels
        Whether a file without any label is an error.
    """

    keys: LabelKeys = field(default_factory=LabelKeys)
    units: Mapping[str, str] | None = None
    config_type: str = ""
    require_labels: bool = True


@dataclass(frozen=True)
class _Task:
    """What a worker does: a whole small file, or some frames of an extended XYZ file."""

    path: Path
    found: str
    chunks: tuple[Chunk, ...] | None
    n_bytes: int
    is_last: bool


def iter_files(
    paths: Sequence[Path],
    options: ReadOptions,
    *,
    n_jobs: int = 1,
    reports: dict[Path, LabelReport] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Frame]:
    """Yield the frames of files, in their order whatever the number of processes.

    Extended XYZ and files below 8 MiB are parsed by workers; larger files of other formats by
    the calling process, which is fast for arrays.

    Parameters
    ----------
    paths
        Files and folders.
    options
        How they are read. Where there are other files, keys and units are theirs and not those
        of stores, which have their own.
    n_jobs
        Processes that parse.
    reports
        Filled with what was found in each file.
    progress
        Told of the bytes that are done now and then.

    Yields
    ------
    Frame
        In the order of the files.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`eqpot.data.readers.iter_frames`.
    OSError
        If a worker died.
    """
    reports = {} if reports is None else reports
    tell = progress or (lambda n_bytes: None)
    formats = [file_format(path) for path in paths]
    only_stores = all(found == "store" for found in formats)
    # what no other file uses is refused by the store
    of_stores = options if only_stores else replace(options, keys=LabelKeys(), units=None)
    if n_jobs < 1:
        raise ValueError(f"`n_jobs` must be 1 or above, got {n_jobs}")
    for path in paths:
        reports.setdefault(path, LabelReport())
    pool = _Pool(n_jobs, options, reports)
    done = 0
    try:
        for path, found in zip(paths, formats, strict=True):
            size = n_bytes_of(path)
            if found == "extxyz" or (found != "store" and path.is_file() and size <= _SMALL_FILE):
                for task in _tasks(path, found, size):
                    for frames, n_bytes in pool.submit(task):
                        yield from frames
                        done += n_bytes
                        tell(done)
                continue
            for frames, n_bytes in pool.drain():
                yield from frames
                done += n_bytes
                tell(done)
            report = reports[path]
            used = of_stores if found == "store" else options
            for frame in _open(path, found, used, report):
                report.add(frame)
                yield frame
            check_something_was_found(path, used.keys, report, used.require_labels)
            done += size
            tell(done)
        for frames, n_bytes in pool.drain():
            yield from frames
            done += n_bytes
            tell(done)
    finally:
        pool.close()


def n_bytes_of(path: Path) -> int:
    """Return the size of a file, or of the files in a folder."""
    if path.is_dir():
        return sum(entry.stat().st_size for entry in path.rglob("*.npy") if entry.is_file())
    return path.stat().st_size


def _open(path: Path, found: str, options: ReadOptions, report: LabelReport) -> Iterator[Frame]:
    return open_frames(path, found, options.keys, options.units, options.config_type, report)


def _tasks(path: Path, found: str, size: int) -> Iterator[_Task]:
    if found != "extxyz":
        yield _Task(path, found, None, size, is_last=True)
        return
    batch: list[Chunk] = []
    n_characters = n_told = 0
    for chunk in extxyz_chunks(path):
        batch.append(chunk)
        n_characters += len(chunk.text)
        if n_characters >= _BATCH_CHARACTERS:
            # a packed file has fewer bytes than its text; the rest is told at its end
            n_bytes = min(n_characters, size - n_told) if not split_suffix(path)[1] else 0
            n_told += n_bytes
            yield _Task(path, found, tuple(batch), n_bytes, is_last=False)
            batch, n_characters = [], 0
    yield _Task(path, found, tuple(batch), size - n_told, is_last=True)


class _Pool:
    """Worker processes whose results come back in order; none where one process is enough."""

    def __init__(self, n_jobs: int, options: ReadOptions, reports: dict[Path, LabelReport]) -> None:
        self.options = options
        self.reports = reports
        self._limit = _WAITING * n_jobs
        self._waiting: deque[tuple[_Task, Future[tuple[list[Frame], LabelReport]]]] = deque()
        self._executor: ProcessPoolExecutor | None = None
        if n_jobs > 1:
            # spawned: a fork would copy the threads of numerical libraries in any state
            self._executor = ProcessPoolExecutor(
                n_jobs, multiprocessing.get_context("spawn"), initializer=_end_with_parent
            )

    def submit(self, task: _Task) -> Iterator[tuple[list[Frame], int]]:
        """Take a task, and yield what is done if too many wait."""
        if self._executor is None:
            yield self._finished(task, _parse(task, self.options))
            return
        self._waiting.append((task, self._executor.submit(_parse, task, self.options)))
        while len(self._waiting) >= self._limit:
            yield self._next()

    def drain(self) -> Iterator[tuple[list[Frame], int]]:
        """Yield all that is under way."""
        while self._waiting:
            yield self._next()

    def close(self) -> None:
        """End the workers; what they have not begun is dropped."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def _next(self) -> tuple[list[Frame], int]:
        task, future = self._waiting.popleft()
        try:
            return self._finished(task, future.result())
        except BrokenProcessPool as error:
            raise OSError(
                f"{task.path}: a worker process died, perhaps for want of memory; try fewer jobs"
            ) from error

    def _finished(
        self, task: _Task, result: tuple[list[Frame], LabelReport]
    ) -> tuple[list[Frame], int]:
        frames, found = result
        report = self.reports[task.path]
        report.merge(found)
        if task.is_last:
            options = self.options
            check_something_was_found(task.path, options.keys, report, options.require_labels)
        return frames, task.n_bytes


def _parse(task: _Task, options: ReadOptions) -> tuple[list[Frame], LabelReport]:
    report = LabelReport()
    frames = []
    if task.chunks is None:
        stream: Iterator[Frame] = _open(task.path, task.found, options, report)
    else:
        labels = label_finder(
            task.path, task.found, options.keys, options.units, options.config_type, report
        )
        stream = (parse_chunk(chunk, labels) for chunk in task.chunks)
    for frame in stream:
        report.add(frame)
        frames.append(frame)
    return frames, report


def _end_with_parent() -> None:
    """Let a worker end when the process that started it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        with contextlib.suppress(OSError):
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
