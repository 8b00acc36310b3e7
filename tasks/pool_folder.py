"""Where a prepared pool lies, on a disk or in a bucket: locked while it is made, whole or not there.

On a disk a new pool takes its place by renaming. A bucket has no renames: there the record, which
says what the pool is, goes first when a pool is replaced and comes last when it is uploaded.
"""

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ait_jax import buckets
from ait_jax.lease import lease


class PoolFolder:
    """The folder `<data_dir>/<name>` of one pool.

    Args:
      path: local or in a bucket.
      record: the file that is there if and only if the pool is whole.
    """

    def __init__(self, path: Any, record: str):
        self.path, self.record = path, path / record
        self._is_local = buckets.is_local(path)
        self._replaced = path.parent / f".{path.name}-replaced"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other preparations out until the block ends, or the process."""
        lock = self.path.parent / f".{self.path.name}.lock"
        if not self._is_local:
            with lease(lock):
                yield
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(lock, "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._finish_replacing()
            yield

    def _finish_replacing(self) -> None:
        """Mends what a process killed between its two renames left: puts the old pool back."""
        if self._replaced.exists() and not self.path.exists():
            self._replaced.rename(self.path)
        shutil.rmtree(self._replaced, ignore_errors=True)

    @contextlib.contextmanager
    def replacing(self) -> Iterator[Path]:
        """Yields a local folder of the pool's name; on a clean exit it becomes the pool.

        Call it in `locked`. If the block raises, the pool that was there stays.
        """
        if self._is_local:
            root = self.path.parent / f".{self.path.name}-preparing"
            shutil.rmtree(root, ignore_errors=True)  # what a killed preparation left
        else:
            root = Path(tempfile.mkdtemp())
        building = root / self.path.name
        try:
            building.mkdir(parents=True)
            yield building
            if self._is_local:
                self._rename(building)
            else:
                self._upload(building)
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def _rename(self, building: Path) -> None:
        if self.path.exists():
            self.path.rename(self._replaced)
        building.rename(self.path)
        shutil.rmtree(self._replaced, ignore_errors=True)

    def _upload(self, building: Path) -> None:
        with buckets.errors_of(self.path):
            self.record.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self.path.rmtree()
        last = building / self.record.name
        for file in sorted(file for file in building.rglob("*") if file.is_file()):
            if file != last:
                buckets.upload(file, self.path / file.relative_to(building).as_posix())
        buckets.upload(last, self.record)
