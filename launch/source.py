"""The code that the hosts run: one commit of this clone, archived."""

import dataclasses
import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

from ait_jax.errors import UserError

LOCK = "constraints.txt"


@dataclasses.dataclass(frozen=True)
class Source:
    """One commit, archived.

    Attributes:
      commit: its full hash; with --allow_dirty, of a commit of the tracked changes.
      archive: the local file; `sha256` is its hash, in hex.
      warning: what the hosts will not see.
    """

    commit: str
    archive: str
    sha256: str
    warning: str = ""

    @property
    def stem(self) -> str:
        """The archive's name in the bucket, without .tar.gz."""
        return f"{self.commit[:12]}-{self.sha256[:12]}"


def root() -> Path:
    """Returns the clone that this program is in."""
    return Path(__file__).resolve().parent.parent


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        raise UserError("git is not on PATH; launching needs it to archive a commit.") from None
    except subprocess.CalledProcessError as error:
        raise UserError(
            f"git {arguments[0]} failed in {folder}: {error.stderr.strip()}. Launching sends a "
            "commit to the hosts: run from a clone (pip install -e .) that has one."
        ) from None
    return done.stdout


def archive(target: Path, allow_dirty: bool = False, folder: Path | None = None) -> Source:
    """Writes the checked-out commit to `target`, a .tar.gz.

    Raises:
      UserError: there is no clone or no lock in it, or there are uncommitted changes.
    """
    folder = folder or root()
    if not (folder / ".git").exists():
        raise UserError(
            f"{folder} is not a git clone; launching sends a commit to the hosts. Install from a "
            "clone: pip install -e ."
        )
    commit = _git(folder, "rev-parse", "HEAD").strip()
    changes = _git(folder, "status", "--porcelain").splitlines()
    warning = ""
    if changes and not allow_dirty:
        shown = ", ".join(line[3:] for line in changes[:3]) + (", ..." if changes[3:] else "")
        raise UserError(
            f"{len(changes)} files in {folder} are not committed ({shown}), so the run could not "
            "be traced to its code. Commit them, or give --allow_dirty."
        )
    if changes:
        commit = _git(folder, "stash", "create").strip() or commit
        left_out = [line[3:] for line in changes if line.startswith("??")]
        if left_out:
            warning = f"untracked files are not sent: {', '.join(left_out[:5])}"
    if LOCK not in tracked(folder, commit):
        raise UserError(
            f"{folder} has no {LOCK} at commit {commit[:12]}; the hosts install from it."
        )
    _git(folder, "archive", "--format=tar.gz", f"--output={target}", commit)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    return Source(commit, str(target), digest, warning)


def tracked(folder: Path, commit: str) -> set[str]:
    """Returns the paths of the commit's files."""
    return set(_git(folder, "ls-tree", "-r", "--name-only", commit).splitlines())


def check_gin_files(command: Iterable[str], folder: Path, commit: str) -> None:
    """Raises UserError for a --gin_file that the hosts will not find."""
    command, files = list(command), tracked(folder, commit)
    search = [""]
    for argument in command:
        if argument.startswith("--gin_search_paths="):
            search += argument.partition("=")[2].split(",")
    for argument, following in zip(command, [*command[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name != "--gin_file":
            continue
        value = value if equals else following
        if "://" in value or f"gin/{value}" in files:
            continue
        path = Path(value)
        if path.is_absolute():
            inside = path.is_relative_to(folder)
            nearest = f" Write --gin_file={path.relative_to(folder)}." if inside else ""
            raise UserError(
                f"--gin_file={value} is a path on this machine; the hosts have {folder.name} "
                f"elsewhere.{nearest} Give a path in the clone, or gs://..."
            )
        if not any(str(Path(prefix, path)) in files for prefix in search):
            raise UserError(
                f"--gin_file={value} is neither a shipped file nor in commit {commit[:12]}, so the "
                "hosts would not find it. Commit it, or give it as gs://..."
            )
