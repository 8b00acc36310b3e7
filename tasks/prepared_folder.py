"""Where a prepared pool lies: one writer at a time, replaced whole or not at all, and its record."""

import contextlib
import errno
import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ait_jax.errors import UserError, nearest
from ait_jax.files import check_name, write_json
from ait_jax.tasks.source_files import SourceFile, difference, files_from_json, files_to_json

ON_BAD_TASK = ("error", "skip")
_RECORD = "source.json"
# What a data_dir can be guilty of; other failures are not the user's.
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST}


def check_on_bad_task(value: str) -> None:
    """Refuses what is neither "error" nor "skip"."""
    if value not in ON_BAD_TASK:
        raise UserError(
            f"on_bad_task is {value!r}; it must be 'error' or 'skip'." + nearest(str(value), ON_BAD_TASK)
        )


class PreparedFolder:
    """`<data_dir>/<name>`, with source.json: what it was made of.

    A source that has changed since is refused rather than prepared beside the old one: runs
    under way read by task name from this folder, and a folder that silently held other
    instances would change them.

    Args:
      data_dir: on a local disk (gin name DATA_DIR).
      name: of the pool and of the folder.
      command: that prepares it, for messages: "ait-jax prepare niv2".
      schema: version of the record.

    Raises:
      UserError: `data_dir` is not local, or the name is unsafe.
    """

    def __init__(self, data_dir: Any, name: str, command: str, schema: int = 1):
        if "://" in str(data_dir):
            raise UserError(
                f"data_dir = {str(data_dir)!r} is not on a local disk; prepare {name} into a local folder."
            )
        self.name = check_name(name, "pool name")
        self.path = Path(data_dir).expanduser() / name
        self.command, self.schema = command, schema
        self._replaced = self.path.parent / f".{name}-replaced"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds a lock that the system releases when the process ends, however it ends.

        Raises:
          UserError: the data directory cannot be written to.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path.parent / f".{self.name}.lock", "a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                self._finish_replacing()
                yield
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            raise UserError(
                f"cannot write to {str(error.filename or self.path.parent)!r}: {error.strerror}. Give a "
                "data_dir (gin name DATA_DIR) that can be written to and has room."
            ) from error

    def _finish_replacing(self) -> None:
        """Mends what a process killed between its two renames left: puts the old pool back."""
        if self._replaced.exists() and not self.path.exists():
            self._replaced.rename(self.path)
        shutil.rmtree(self._replaced, ignore_errors=True)

    @contextlib.contextmanager
    def rebuilt(self) -> Iterator[Path]:
        """Yields a temporary folder; on a clean exit what it has under the pool's name takes its place."""
        building = self.path.parent / f".{self.name}-preparing"
        shutil.rmtree(building, ignore_errors=True)
        try:
            yield building
            if self.path.exists():
                self.path.rename(self._replaced)
            (building / self.name).rename(self.path)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(self._replaced, ignore_errors=True)

    def write_record(
        self, files: Mapping[str, SourceFile], values: Mapping[str, Any], building: Path | None = None
    ) -> dict[str, Any]:
        """Writes and returns the record.

        Args:
          files: the source's.
          values: what else is to be remembered, for JSON.
          building: as from `rebuilt`; by default the record of the pool that is there.
        """
        record = {"schema": self.schema, **values, "files": files_to_json(files)}
        folder = building / self.name if building else self.path
        write_json(folder / _RECORD, record, any_process=True)
        return record

    def read_record(self) -> dict[str, Any] | None:
        """Returns the record of a prepared pool, None where there is no pool.

        Raises:
          UserError: it is damaged, or of another version.
        """
        path = self.path / _RECORD
        try:
            record = json.loads(path.read_text("utf-8"))
            if not isinstance(record, dict):
                raise ValueError("not an object")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} is damaged ({error}); remove {str(self.path)!r} and prepare again."
            ) from error
        if record.get("schema") != self.schema:
            raise UserError(
                f"{path} was written by another version of ait-jax (schema {record.get('schema')!r}, "
                f"this one reads {self.schema}); prepare again with overwrite, or into another data_dir."
            )
        return record

    def files_before(self, record: Mapping[str, Any]) -> dict[str, SourceFile]:
        """Returns the source's files as the record has them."""
        return files_from_json(record["files"])

    def refuse_changes(
        self, before: Mapping[str, SourceFile], now: Mapping[str, SourceFile], source: str
    ) -> None:
        """Refuses a source that differs from the one the pool was prepared from.

        Args:
          source: in words: "NIV2_DIR = 'clone'".
        """
        changes = difference(before, now)
        if changes:
            raise UserError(
                f"{str(self.path)!r} was prepared from other files than {source} has: {changes}. "
                f"Give another data_dir, or overwrite (`{self.command} --overwrite`)."
            )
