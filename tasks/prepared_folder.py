"""A prepared pool's folder and its record: what it was made of, and whether that changed."""

import contextlib
import errno
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ait_jax.tasks.pool_folder import PoolFolder
from ait_jax.tasks.source_files import SourceFile, difference, files_from_json, files_to_json

from ait_jax.errors import UserError, nearest
from ait_jax.runtime.files import as_path, check_name, read_text, write_json

ON_BAD_TASK = ("error", "skip")
_RECORD = "source.json"
# What a data_dir can be guilty of; other failures are not the user's.
_UNWRITABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EEXIST,
}


def check_on_bad_task(value: str) -> None:
    """Refuses what is neither "error" nor "skip"."""
    if value not in ON_BAD_TASK:
        raise UserError(
            f"on_bad_task is {value!r}; it must be 'error' or 'skip'."
            + nearest(str(value), ON_BAD_TASK)
        )


class PreparedFolder:
    """`<data_dir>/<name>`, with source.json: what it was made of.

    A source that has changed since is refused rather than prepared beside the old one: runs
    under way read by task name from this folder, and a folder that silently held other
    instances would change them.

    Args:
      data_dir: local or in a bucket (gin name DATA_DIR).
      name: of the pool and of the folder.
      command: that prepares it, for messages: "ait-jax prepare niv2".
      schema: version of the record.

    Raises:
      UserError: the name is unsafe.
    """

    def __init__(self, data_dir: Any, name: str, command: str, schema: int = 1) -> None:
        self.name = check_name(name, "pool name")
        self.path = as_path(data_dir) / name
        self.command, self.schema = command, schema
        self._folder = PoolFolder(self.path, _RECORD)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other preparations out until the block ends, or the process.

        Raises:
          UserError: the data directory cannot be written to.
        """
        try:
            with self._folder.locked():
                yield
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            raise UserError(
                f"cannot write to {str(error.filename or self.path.parent)!r}: {error.strerror}. "
                "Give a data_dir (gin name DATA_DIR) that can be written to and has room."
            ) from error

    @contextlib.contextmanager
    def rebuilt(self) -> Iterator[Path]:
        """Yields a temporary folder; on a clean exit its folder `name` is the pool."""
        with self._folder.replacing() as building:
            yield building.parent

    def write_record(
        self,
        files: Mapping[str, SourceFile],
        values: Mapping[str, Any],
        building: Path | None = None,
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
            record = json.loads(read_text(path))
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
                f"{path} was written by another version of ait-jax (schema "
                f"{record.get('schema')!r}, "
                f"this one reads {self.schema}); prepare again with overwrite, or into another "
                "data_dir."
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
