"""Where a prepared pool lies, on a disk or in a bucket: locked while it is made, whole or not there.

On a disk a new pool takes its place by renaming. A bucket has no renames: there the record, which
says what the pool is, goes first when a pool is replaced and comes last when it is uploaded.
"""

import contextlib
import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ait_jax.runtime import buckets
from ait_jax.runtime.lease import Held, lease


class PoolFolder:
    """The folder `<data_dir>/<name>` of one pool.

    Args:
      path: local or in a bucket.
      record: the file that is there if and only if the pool is whole.
    """

    def __init__(self, path: Any, record: str) -> None:
        self.path, self.record = path, path / record
        self._is_local = buckets.is_local(path)
        self._replaced = path.parent / f".{path.name}-replaced"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other preparations out until the block ends, or the process; waits for them.

        Every process of a pod comes here before it reads the pool.
        """
        lock = self.path.parent / f".{self.path.name}.lock"
        if not self._is_local:
            with _in_turn(lock):
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
        """Yields a local folder of the pool's name, not there yet; on a clean exit it is the pool.

        Call it in `locked`. If the block raises, the pool that was there stays.
        """
        if self._is_local:
            root = self.path.parent / f".{self.path.name}-preparing"
            shutil.rmtree(root, ignore_errors=True)  # what a killed preparation left
            root.mkdir()
        else:
            root = Path(tempfile.mkdtemp())
        building = root / self.path.name
        try:
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


@contextlib.contextmanager
def _in_turn(lock: Any) -> Iterator[None]:
    """Holds the lease `lock` as soon as whoever has it lets go of it, or is dead."""
    said: list[str] = []

    def say(line: str) -> None:
        if not said:
            print(f"waiting for another preparation: {line}")
        said.append(line)

    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(lease(lock, say))
                break
            except Held:
                continue  # it lives: waiting for the next sign takes a while
        yield


def local_copies(folder: Any, fingerprint: str, names: Sequence[str]) -> Any:
    """Returns a local folder with the named files of a pool: `folder` itself if it is local.

    Args:
      folder: in which they lie.
      fingerprint: of the pool's content: files of another one are other files.
      names: which; fetched once by every machine.
    """
    if buckets.is_local(folder):
        return folder
    place = hashlib.sha256(f"{folder}\0{fingerprint}".encode()).hexdigest()[:32]
    local = buckets.cache_folder() / "pools" / place
    for name in names:
        buckets.cached(folder / name, local)
    return local
