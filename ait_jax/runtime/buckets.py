"""Buckets (gs://, s3://, az://): epath's paths over fsspec.

A bucket has neither renames nor appends, but an object appears whole when its upload ends, so
files are made on the local disk and uploaded. Folders are only prefixes of names and cannot be
swapped at once: one last small object completes what must appear together.
"""

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ait_jax.errors import UserError, first_line, nearest, shown

CACHE = "AIT_JAX_CACHE"
# Scheme -> (the fsspec implementation, what brings it).
_SCHEMES = {
    "gs": ("gcsfs", "pip install 'ait-jax[gcs]'"),
    "s3": ("s3fs", "pip install s3fs"),
    "az": ("adlfs", "pip install adlfs"),
}

# Otherwise epath uses TensorFlow's file systems: slow to import, and their errors are no OSErrors.
os.environ.setdefault("EPATH_USE_TF", "false")
# Otherwise gcsfs asks for the kind of every bucket, and warns if that is not permitted.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")


class Unavailable(Exception):
    """A bucket did not answer; the request was right."""


def is_local(path: Any) -> bool:
    """Says whether a path is on a disk."""
    return "://" not in str(path)


def path(text: str) -> Any:
    """Returns `text` as an `epath.Path` that goes through fsspec.

    Raises:
      UserError: an unknown scheme, no bucket, or a package that is not installed.
    """
    scheme, _, rest = text.partition("://")
    if scheme not in _SCHEMES:
        known = [f"{name}://" for name in _SCHEMES]
        raise UserError(
            f"{shown(text)} is neither a local path nor one in a bucket ({', '.join(known)})."
            + nearest(f"{scheme}://", known)
        )
    if not rest.strip("/"):
        raise UserError(f"{shown(text)} names no bucket; give {scheme}://BUCKET/FOLDER.")
    package, remedy = _SCHEMES[scheme]
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{shown(text)} needs the package {package}: {remedy}.")
    _configure()
    from etils import epath

    return epath.Path(text)


def _configure() -> None:
    from fsspec.config import conf

    for protocol in ("gcs", "gs", "s3", "az", "abfs"):
        # A cached listing would hide what other hosts have written since.
        conf.setdefault(protocol, {}).setdefault("use_listings_cache", False)


def file_system(path: Any) -> tuple[Any, str]:
    """Returns the fsspec file system of a bucket's path, and the path in its form."""
    import fsspec

    _configure()
    return fsspec.core.url_to_fs(str(path))


def upload(local: Any, path: Any) -> None:
    """Copies a local file; the object appears whole. Raises as `errors_of`."""
    with errors_of(path):
        system, name = file_system(path)
        system.put_file(str(local), name)


def download(path: Any, local: Any) -> None:
    """Copies an object to a local file. Raises FileNotFoundError, or as `errors_of`."""
    with errors_of(path):
        system, name = file_system(path)
        system.get_file(name, str(local))


def cached(path: Any, folder: Path) -> Path:
    """Returns a local copy of an object that never changes, made in `folder` unless it is there.

    Several processes may ask at once. Raises as `download`.
    """
    local = folder / path.name
    if not local.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as elsewhere:
            temporary = Path(elsewhere) / path.name
            download(path, temporary)
            temporary.replace(local)
    return local


def cache_folder() -> Path:
    """Returns where copies of objects lie on this machine (the variable AIT_JAX_CACHE)."""
    return Path(os.environ.get(CACHE) or "~/.cache/ait_jax").expanduser()


@contextmanager
def errors_of(path: Any) -> Iterator[None]:
    """Names the object in errors of a bucket.

    FileNotFoundError, FileExistsError and all errors of a local `path` pass unchanged.

    Raises:
      UserError: the bucket refuses.
      Unavailable: it does not answer, even after several attempts.
    """
    if is_local(path):
        yield
        return
    try:
        yield
    except (UserError, Unavailable, FileNotFoundError, FileExistsError):
        raise
    except Exception as error:  # those of gcsfs, s3fs, adlfs and google-auth have no common class
        told = f"{type(error).__name__}: {first_line(error)}"
        if _is_passing(error):
            raise Unavailable(f"{path}: the bucket does not answer ({told})") from error
        raise UserError(
            f"{path}: the bucket refuses ({told}). Check its name, its permissions and your "
            "credentials (`gcloud auth application-default login`); the same command continues."
        ) from error


def _is_passing(error: Exception) -> bool:
    """Says whether the same request may succeed later."""
    code = getattr(error, "code", None)
    if isinstance(code, int):
        return code >= 500 or code in (408, 429)
    libraries = ("aiohttp", "requests", "urllib3")
    return isinstance(error, (TimeoutError, ConnectionError)) or any(
        kind.__module__.split(".")[0] in libraries for kind in type(error).__mro__
    )
