"""Answers of an endpoint on disk, one file for each request, so that nothing is paid twice."""

import dataclasses
import json
from typing import Any

from ait_jax.endpoint.chat import Reply, Request
from ait_jax.errors import UserError
from ait_jax.runtime import files

_VERSION = 1
_MARKER = "cache.json"
_NUMBERS = {"cost": float, "input_tokens": int, "output_tokens": int}


class ReplyCache:
    """A folder of {"request": ..., "reply": ...}, `<2 digits>/<sha256 of the request>.json`.

    The request is kept in full: a file says by itself what was asked, and is used only if it
    is the very request that is asked now. The key of the endpoint is no part of a request.
    """

    def __init__(self, directory: Any) -> None:
        self.directory = files.as_path(directory)
        self.damaged: list[str] = []

    def prepare(self) -> None:
        """Makes the folder: what cannot be kept must be known before it is paid for.

        Raises:
          UserError: it cannot be written to, or another version of this program made it.
        """
        marker = self.directory / _MARKER
        try:
            version = json.loads(marker.read_bytes())["version"]
        except (OSError, ValueError, KeyError, TypeError):
            files.write_json(marker, {"what": "answers of chat endpoints", "version": _VERSION})
            return
        if version != _VERSION:
            raise UserError(
                f"{self.directory} is a cache of version {version}, this program writes version "
                f"{_VERSION}; give another folder."
            )

    def path(self, request: Request) -> Any:
        """Returns where the reply to `request` lies or will lie."""
        key = request.key
        return self.directory / key[:2] / f"{key}.json"

    def get(self, request: Request) -> Reply | None:
        """Returns the kept reply, or None; a file that cannot be used is noted in `damaged`."""
        path = self.path(request)
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            value = json.loads(data)
            if value["request"] != request.record():
                raise ValueError("another request")
            return _reply(value["reply"])
        except (ValueError, KeyError, TypeError):
            self.damaged.append(str(path))
            return None

    def put(self, request: Request, reply: Reply) -> None:
        """Writes `reply`, whole or not at all. Raises UserError as `files.replace_with`."""
        kept = {k: v for k, v in dataclasses.asdict(reply).items() if k != "cached"}
        # ASCII: an answer may hold half a surrogate pair, which UTF-8 cannot.
        text = json.dumps({"request": request.record(), "reply": kept}, indent=1)
        files.write_text(self.path(request), text + "\n")


def _reply(value: dict[str, Any]) -> Reply:
    text, error, finish = value["text"], value["error"], value["finish"]
    if not (text is None or isinstance(text, str)) or not isinstance(error, str):
        raise ValueError("text and error must be text")
    if not isinstance(finish, str) or (text is None) != bool(error):
        raise ValueError("a reply has either a text or an error")
    for name, kind in _NUMBERS.items():
        if type(value[name]) not in (int, kind) or not value[name] >= 0:
            raise ValueError(f"{name} must be a number")
    numbers = {name: value[name] for name in ("input_tokens", "output_tokens")}
    return Reply(text=text, error=error, cached=True, cost=0.0, finish=finish, **numbers)
