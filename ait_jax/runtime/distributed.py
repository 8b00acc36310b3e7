"""Several processes as one program: who writes, who waits for whom, and who is missing.

With one process everything here passes its argument on. Processes talk through the key-value
store of JAX's coordination service, which runs in process 0; a thread in each watches the others.
"""

import atexit
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ait_jax.errors import ExitCode, UserError, first_line, nearest, shown, visible

# How this process finds the others: "local" through the next three variables, "tpu" and "slurm"
# through what the machine provides.
KIND = "AIT_JAX_DISTRIBUTED"
COORDINATOR, COUNT, INDEX = "AIT_JAX_COORDINATOR", "AIT_JAX_PROCESSES", "AIT_JAX_PROCESS"
KINDS = ("local", "slurm", "tpu")
# The longest wait for the others.
BARRIER_SECONDS = "AIT_JAX_BARRIER_SECONDS"

# What gRPC takes for proxies of its connections.
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_START_SECONDS = 300
_MOST_CHARACTERS = 4000  # of a line
_BEAT_SECONDS = 2.0
# A process that is silent for this long is dead: Python's threads run on during work in C++.
_SILENCE_SECONDS = 30.0
# Lets a failed process's own message come first; all may fail for the same reason.
_GRACE_SECONDS = 5.0


class PeerLost(Exception):
    """Another process has died or did not come; the message names it."""


@dataclass
class Pod:
    """The processes of this program, on `hosts`; `client` is of the coordination service."""

    index: int
    count: int
    client: Any
    hosts: list[str] = field(default_factory=list)
    _uses: dict[str, int] = field(default_factory=dict)

    def key(self, name: str) -> str:
        """Returns a new key for each use of `name`, the same in every process."""
        self._uses[name] = self._uses.get(name, 0) + 1
        return f"ait_jax/{name}#{self._uses[name]}"

    def names(self, indices: Sequence[int]) -> str:
        """Returns processes and their hosts, for messages."""
        return ", ".join(f"process {i} on {self.hosts[i]}" for i in indices)

    def values(self, prefix: str) -> dict[int, str]:
        """Returns what each process has set below a prefix."""
        found = self.client.key_value_dir_get(prefix)
        return {int(key.rpartition("/")[2]): value for key, value in found}


_pod: Pod | None = None


def initialize(environ: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes that the environment names, if any; call it before using JAX.

    Raises:
      UserError: a variable is missing or wrong.
      PeerLost: not all processes came.
    """
    global _pod  # noqa: PLW0603 - a process belongs to one program
    if not environ.get(KIND) or _pod is not None:
        return
    arguments = _arguments(environ)
    if "coordinator_address" in arguments:
        os.environ.update(past_proxies(arguments["coordinator_address"]))
    elif found := [name for name in _PROXIES if environ.get(name)]:
        say(
            f"{found[0]} is set; if the processes do not find each other, add their hosts to "
            "no_proxy or unset it"
        )
    # Imported late: every command loads this module, few have several processes.
    import logging
    import socket

    import jax

    # It warns of all variables of proxies, of those that keep them away, too.
    logging.getLogger("jax._src.distributed").setLevel(logging.ERROR)
    try:
        jax.distributed.initialize(**arguments, initialization_timeout=_START_SECONDS)
    except RuntimeError as error:
        raise PeerLost(
            f"not all processes connected within {_START_SECONDS} s: {first_line(error)}"
        ) from error
    from jax._src import distributed  # the only way to the client

    state = distributed.global_state
    pod = Pod(jax.process_index(), jax.process_count(), state.client)
    pod.client.key_value_set(f"ait_jax/hosts/{pod.index}", socket.gethostname())
    pod.client.wait_at_barrier("ait_jax/hosts", 1000 * _START_SECONDS)
    pod.hosts = [visible(host) for _, host in sorted(pod.values("ait_jax/hosts").items())]
    _pod = pod
    if pod.index and state.coordinator_address:
        host, _, port = state.coordinator_address.rpartition(":")
        _explain_aborts(pod, host, int(port))
    leaving = threading.Event()
    watch = threading.Thread(target=_watch, args=(pod, leaving), name="watch", daemon=True)
    watch.start()
    atexit.register(_part, leaving, watch)


def past_proxies(coordinator: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns the variables that keep proxies away from the coordinator's "host:port".

    Its connections are gRPC's, which would send even those to this machine through `http_proxy`
    and wait for minutes. Without proxies there are none.
    """
    if not any(environ.get(name) for name in _PROXIES):
        return {}
    host = coordinator.rpartition(":")[0].strip("[]")
    hosts = ["localhost", "127.0.0.1", "::1"] if host in ("localhost", "127.0.0.1") else [host]
    general = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    grpc = environ.get("no_grpc_proxy") or general
    named = {"no_proxy": general, "NO_PROXY": general, "no_grpc_proxy": grpc}
    return {name: ",".join([*filter(None, [value]), *hosts]) for name, value in named.items()}


def _arguments(environ: Mapping[str, str]) -> dict[str, Any]:
    """Returns the arguments of `jax.distributed.initialize`."""
    kind = environ[KIND]
    if kind not in KINDS:
        raise UserError(f"{KIND}={kind} is not one of {', '.join(KINDS)}.{nearest(kind, KINDS)}")
    if kind != "local":
        return {}
    missing = [name for name in (COORDINATOR, COUNT, INDEX) if not environ.get(name)]
    if missing:
        raise UserError(
            f"{KIND}=local needs {', '.join(missing)}; `ait-jax launch local` sets them all."
        )
    try:
        count, index = int(environ[COUNT]), int(environ[INDEX])
    except ValueError:
        count = index = -1
    if not 0 <= index < count:
        raise UserError(
            f"{COUNT}={environ[COUNT]} and {INDEX}={environ[INDEX]} do not fit; {INDEX} must be "
            f"from 0 to {COUNT} - 1."
        )
    return {
        "coordinator_address": environ[COORDINATOR],
        "num_processes": count,
        "process_id": index,
    }


def process_count() -> int:
    """Returns the number of processes."""
    return _pod.count if _pod else 1


def is_writer() -> bool:
    """Says whether this process writes the shared files."""
    return _pod is None or _pod.index == 0


def own(items: Sequence[Any]) -> list[Any]:
    """Returns this process's share of items that every process has."""
    return list(items if _pod is None else items[_pod.index :: _pod.count])


def barrier(name: str) -> None:
    """Waits until every process is here; what the writer wrote before is then on the disk.

    Raises:
      PeerLost: not all came in time; names those that did not.
    """
    if _pod is None:
        return
    key, seconds = _pod.key(f"barrier/{name}"), _barrier_seconds()
    _pod.client.key_value_set(f"{key}/{_pod.index}", "here")
    try:
        _pod.client.wait_at_barrier(key, 1000 * seconds)
    except Exception as error:  # jaxlib's own type
        came = _pod.values(key)
        missing = [i for i in range(_pod.count) if i not in came]
        who = _pod.names(missing) if missing else "a process that had come has died"
        raise PeerLost(f"waited {seconds} s at {shown(name)}; missing: {who}") from error


def broadcast(name: str, value: Any) -> Any:
    """Returns the writer's JSON `value` in every process.

    What the writer wrote before is then on the disk.

    Raises:
      PeerLost: the writer did not come in time.
    """
    if _pod is None:
        return value
    key, seconds = _pod.key(f"said/{name}"), _barrier_seconds()
    if is_writer():
        _pod.client.key_value_set(key, json.dumps(value))
    try:
        return json.loads(_pod.client.blocking_key_value_get(key, 1000 * seconds))
    except Exception as error:
        raise PeerLost(f"waited {seconds} s for {_pod.names([0])} at {shown(name)}") from error


def all_gather(data: bytes) -> list[bytes]:
    """Returns the bytes of every process, in order, over the devices' network."""
    if _pod is None:
        return [data]
    import numpy as np
    from jax.experimental import multihost_utils

    array = np.frombuffer(data, np.uint8)
    lengths = multihost_utils.process_allgather(np.array([array.size], np.int64)).ravel().tolist()
    padded = np.zeros(max(lengths), np.uint8)
    padded[: array.size] = array
    everything = multihost_utils.process_allgather(padded).reshape(len(lengths), -1)
    return [row[:length].tobytes() for row, length in zip(everything, lengths, strict=True)]


def _barrier_seconds() -> int:
    return int(os.environ.get(BARRIER_SECONDS, "1800"))


def _watch(pod: Pod, leaving: threading.Event) -> None:
    """Ends this process when another has died or failed."""
    beat, heard = 0, dict.fromkeys(range(pod.count), ("", time.monotonic()))
    while not leaving.is_set():
        beat += 1
        try:
            pod.client.key_value_set(f"ait_jax/alive/{pod.index}", str(beat), allow_overwrite=True)
            alive, failed = pod.values("ait_jax/alive"), pod.values("ait_jax/failed")
        except Exception:
            return  # the service is gone: the program ends, or `_explain_aborts` says why
        now = time.monotonic()
        heard |= {i: (said, now) for i, said in alive.items() if said != heard[i][0]}
        for index in sorted(failed.keys() - {pod.index}):
            time.sleep(_GRACE_SECONDS)
            _end(f"{pod.names([index])} failed: {failed[index]}")
        silent = [i for i, (_, since) in heard.items() if now - since > _SILENCE_SECONDS]
        if silent:
            _end(f"{pod.names(sorted(silent))} has died: silent for {_SILENCE_SECONDS:.0f} s")
        leaving.wait(_BEAT_SECONDS)


def _part(leaving: threading.Event, watch: threading.Thread) -> None:
    """Leaves the others at the end of the program, and ends the watch last.

    So they see this process alive while JAX waits for them. A thread in C++ when Python ends would
    abort the process.
    """
    import jax

    jax.distributed.shutdown()
    leaving.set()
    watch.join(timeout=10 * _BEAT_SECONDS)


def _end(message: str) -> None:
    say(f"{message}. The same command continues the run.")
    sys.stdout.flush()
    os._exit(ExitCode.HOST_LOST)


def say(message: str) -> None:
    """Prints a line to the error stream, with this process's name if there are several.

    It stays one line, whatever a message repeats.
    """
    who = f"{_pod.names([_pod.index])}: " if _pod else ""
    text = visible(f"ait-jax: {who}{message}"[:_MOST_CHARACTERS])
    print(text, file=sys.stderr, flush=True)


_handlers: list[Any] = []  # C holds only pointers to them


def _explain_aborts(pod: Pod, host: str, port: int) -> None:
    """From now on an abort says so and exits with HOST_LOST if the coordinator has died.

    JAX's coordination service then aborts every process at once, and its callbacks cannot be
    Python functions (jaxlib 0.10).
    """
    import ctypes
    import socket

    def handler(number: int) -> None:
        try:
            socket.create_connection((host, port), timeout=2).close()
        except OSError:
            who, whom = pod.names([pod.index]), pod.names([0])
            text = f"ait-jax: {who}: {whom} has died. The same command continues the run.\n"
            os.write(2, text.encode())
            os._exit(ExitCode.HOST_LOST)

    library = ctypes.CDLL(None)
    library.signal.restype = ctypes.c_void_p
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    _handlers.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(handler))
    library.signal(signal.SIGABRT, ctypes.cast(_handlers[-1], ctypes.c_void_p))


def leave(code: int, message: str) -> None:
    """Ends this process at once, after telling the others why; returns if it is the only one.

    JAX's own exit would wait for the others.
    """
    if _pod is None:
        return
    try:
        if code == ExitCode.FAILED:
            # A collective may fail before anyone knows who is missing: the watch finds out.
            time.sleep(_SILENCE_SECONDS + 2 * _BEAT_SECONDS)
        _pod.client.key_value_set(f"ait_jax/failed/{_pod.index}", message[:300])
        time.sleep(_BEAT_SECONDS)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
