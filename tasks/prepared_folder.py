"""A prepared pool's folder, on a disk or in a bucket: locked while it is made, whole or not there.

On a disk a new pool takes its place by renaming. A bucket has no renames: there the record, which
says what the pool was made from, is removed first when a pool is replaced and uploaded last.
"""

import contextlib
import fcntl
import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from ait_jax.tasks.source_files import SourceFile, SourceFiles, difference

from ait_jax.errors import UserError, first_line, nearest, shown, shown_path
from ait_jax.runtime import buckets, disk, reporter, strict_json, terminal
from ait_jax.runtime.files import as_path, check_name, read_bytes, write_json
from ait_jax.runtime.lease import Held, lease

ON_BAD_TASK = ("error", "skip")
_RECORD = "source.json"
_SCHEMA = 1
_REMEDY = "prepare again with overwrite, or into another data_dir"
T = TypeVar("T")
_SECONDS_PER_LINE = 10.0

# Writes a pool into a folder that is not there yet, made from files with what is to be remembered
# of them; calls the function given with the bytes read, and returns what else the record holds.
Build = Callable[[Path, Mapping[str, SourceFile], Callable[[int], None]], Mapping[str, Any]]


class _Files(TypedDict):
    files: dict[str, SourceFile]


def read_record(path: Any, schema: int, remedy: str) -> dict[str, Any] | None:
    """Returns the JSON object that says what a folder holds, None if there is no such file.

    Raises:
      UserError: it is damaged, or its "schema" is another; the `remedy` is what to do then.
    """
    try:
        data = read_bytes(path, strict_json.MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(
            f"{shown_path(path)}: cannot be read ({error.strerror or error}); {remedy}."
        ) from error
    try:
        record = strict_json.typed(strict_json.loads(data, path), dict[str, Any], path)
    except UserError as error:
        raise UserError(f"{shown_path(path)} is damaged: {error} {remedy.capitalize()}.") from error
    if type(record.get("schema")) is not int or record["schema"] != schema:
        raise UserError(
            f"{shown_path(path)}: written by another version of ait-jax (schema "
            f"{shown(record.get('schema'))}; this one reads {schema}); {remedy}."
        )
    return record


def check_on_bad_task(value: str) -> None:
    """Refuses anything but "error" and "skip"."""
    if value not in ON_BAD_TASK:
        raise UserError(
            f"on_bad_task is {shown(value)}; it must be 'error' or 'skip'."
            + nearest(str(value), ON_BAD_TASK)
        )


class PreparedFolder:
    """`<data_dir>/<name>`, with source.json: what the pool was made from.

    A source that has changed since is refused: runs under way read by task name from this folder,
    and other instances in it would change them.

    Args:
      data_dir: local or in a bucket (gin name DATA_DIR).
      name: of the pool and of the folder; UserError if it is unsafe.
      command: that prepares it, for messages: "ait-jax prepare niv2".
    """

    def __init__(self, data_dir: Any, name: str, command: str) -> None:
        self.name = check_name(name, "pool name")
        self.path = as_path(data_dir) / name
        self._command = command
        self._is_local = buckets.is_local(self.path)
        self._replaced = self.path.parent / f".{name}-replaced"

    def prepare(
        self, source: SourceFiles, build: Build, label: str, passes: int, overwrite: bool
    ) -> tuple[dict[str, Any], bool]:
        """Prepares the pool, unless that was done before; whole or not at all.

        What a killed preparation left is removed by the next. Two processes that prepare at once
        take turns, and the second finds the work done.

        Args:
          source: what to make the pool from.
          build: makes it.
          label: for the progress: "Preparing 3 NIV2 tasks".
          passes: how often `build` reads all files.
          overwrite: prepare in any case, and replace what is there.

        Returns:
          the record, and whether this call prepared the pool.

        Raises:
          UserError: the source is not that of the pool that is there, changes meanwhile, or cannot
            be read; the data directory cannot be written to.
        """
        with self.locked():
            record = None if overwrite else self.read_record()
            if record is not None:
                return self._compared(record, source), False
            with self.replacing() as building:
                with _progress(label, (1 + passes) * source.num_bytes) as advance:
                    files = source.read({}, advance)
                    values = build(building, files, advance)
                if source.read(files) != files:
                    raise UserError(f"{source.label} changed while it was being read; try again.")
                return _write_record(building, values, files), True

    def _compared(self, record: dict[str, Any], source: SourceFiles) -> dict[str, Any]:
        """Returns the record with the source's present times; refuses changed contents."""
        before = record["files"]
        now = source.read(before)
        if changes := difference(before, now):
            raise UserError(
                f"{shown(str(self.path))} was prepared from other files than {source.label} has: "
                f"{changes}. Give another data_dir, or overwrite (`{self._command} --overwrite`)."
            )
        if now == before:
            return record
        # The same contents at new times: remembered, so as not to be read again.
        values = {k: v for k, v in record.items() if k not in ("schema", "files")}
        return _write_record(self.path, values, now)

    def read_record(self) -> dict[str, Any] | None:
        """Returns the record of a prepared pool, None if there is no pool; see `read_record`.

        "files" are `SourceFile`; the builder checks the types of what it put there, by `fields_of`.
        """
        record = read_record(self.path / _RECORD, _SCHEMA, _REMEDY)
        if record is not None:
            files = strict_json.converted(record, _Files, self.path / _RECORD, _REMEDY)["files"]
            record["files"] = files
        return record

    def fields_of(self, record: Mapping[str, Any], kind: type[T]) -> T:
        """Returns fields of the record as `kind`, a TypedDict or dataclass. Raises UserError."""
        return strict_json.converted(dict(record), kind, self.path / _RECORD, _REMEDY)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other preparations, and the other processes of a pod, out; waits for them.

        Raises:
          UserError: the data directory cannot be written to.
        """
        lock = self.path.parent / f".{self.name}.lock"
        if not self._is_local:
            with _in_turn(lock):
                yield
            return
        with disk.writing(self.path, "a writable data_dir (gin name DATA_DIR)"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with disk.lock_file(lock) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # A process killed between its two renames has left the old pool here.
                if self._replaced.exists() and not self.path.exists():
                    self._replaced.rename(self.path)
                disk.sweep(self._replaced)
                yield

    @contextlib.contextmanager
    def replacing(self) -> Iterator[Path]:
        """Yields a local folder of the pool's name, not there yet; on a clean exit it is the pool.

        Call it in `locked`. If the block raises, the pool that was there stays.
        """
        if self._is_local:
            root = self.path.parent / f".{self.name}-preparing"
            disk.sweep(root)  # what a killed preparation left
            root.mkdir()
        else:
            root = Path(tempfile.mkdtemp())
        building = root / self.name
        try:
            yield building
            if self._is_local:
                if self.path.exists():
                    self.path.rename(self._replaced)
                building.rename(self.path)
                disk.sweep(self._replaced)
            else:
                self._upload(building)
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def _upload(self, building: Path) -> None:
        with buckets.errors_of(self.path):
            (self.path / _RECORD).unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self.path.rmtree()
        files = [file for file in building.rglob("*") if file.is_file()]
        for file in sorted(files, key=lambda file: (file == building / _RECORD, file)):
            buckets.upload(file, self.path / file.relative_to(building).as_posix())


def _write_record(
    folder: Any, values: Mapping[str, Any], files: Mapping[str, SourceFile]
) -> dict[str, Any]:
    remembered = {name: asdict(file) for name, file in files.items()}
    record = {"schema": _SCHEMA, **values, "files": remembered}
    write_json(folder / _RECORD, record, any_process=True)
    return record


@contextlib.contextmanager
def _in_turn(lock: Any) -> Iterator[None]:
    """Holds the lease `lock` as soon as its holder lets go of it, or is dead."""
    said: list[str] = []

    def say(line: str) -> None:
        if not said:
            reporter.say(f"waiting for another preparation: {line}")
        said.append(line)

    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(lease(lock, say))
                break
            except Held:
                continue  # the holder lives: waiting for its next sign takes a while
        yield


@contextlib.contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields what to call with amounts done; shows a bar, without a terminal lines on stderr."""
    done, last = 0, time.monotonic()
    is_terminal = terminal.is_terminal()
    if not is_terminal:
        print(f"{label} ...", file=sys.stderr, flush=True)
    with reporter.progress(label, max(1, total)) as update:

        def advance(amount: int) -> None:
            nonlocal done, last
            done += amount
            update(done)
            if not is_terminal and time.monotonic() - last >= _SECONDS_PER_LINE:
                last = time.monotonic()
                percent = min(100, 100 * done // max(1, total))
                print(f"{label}: {percent}%", file=sys.stderr, flush=True)

        yield advance


def damaged(place: object, error: Exception, remedy: str) -> UserError:
    """Returns what a library's error about a pool's file means: trouble of the disk, or damage."""
    if trouble := disk.trouble(error):
        return UserError(f"{shown_path(place)}: {trouble}.")
    return UserError(f"{shown_path(place)} is damaged ({first_line(error)}); {remedy}.")


def local_copies(folder: Any, fingerprint: str, names: Sequence[str]) -> Any:
    """Returns a local folder with the named files of a pool: `folder` itself if it is local.

    Each machine fetches them once; another `fingerprint` of the pool's content has other copies.
    """
    if buckets.is_local(folder):
        return folder
    place = hashlib.sha256(f"{folder}\0{fingerprint}".encode()).hexdigest()[:32]
    local = buckets.cache_folder() / "pools" / place
    for name in names:
        buckets.cached(folder / name, local)
    return local
