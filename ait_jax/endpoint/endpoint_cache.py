"""An endpoint's answers on disk, one file per request, so that nothing is paid for twice."""

import dataclasses
import json
from typing import Any

from ait_jax.endpoint.chat import ChatRequest, Reply
from ait_jax.errors import UserError
from ait_jax.runtime import disk, files, strict_json

_VERSION = 1
_MARKER = "cache.json"
_NUMBERS = {"cost": float, "input_tokens": int, "output_tokens": int}


class ReplyCache:
    """A folder of {"request": ..., "reply": ...}, `<2 digits>/<sha256 of the request>.json`.

    The request is kept in full: a file says what was asked and is used only for that very
    request. The endpoint's key is not part of a request.
    """

    def __init__(self, directory: Any) -> None:
        self.directory = files.as_path(directory)
        self.damaged: list[str] = []

    def prepare(self) -> None:
        """Creates the folder, so that a problem shows before anything is paid for.

        Raises:
          UserError: it is not writable, or another version of this program created it.
        """
        marker = self.directory / _MARKER
        try:
            disk.tidy(self.directory, depth=1)
            version = strict_json.loads(marker.read_bytes(), marker)["version"]
        except (OSError, UserError, KeyError, TypeError):
            files.write_json(marker, {"what": "answers of chat endpoints", "version": _VERSION})
            return
        if version != _VERSION:
            raise UserError(
                f"{self.directory} is a cache of version {version}, this program writes version "
                f"{_VERSION}; give another --cache_dir."
            )

    def path(self, request: ChatRequest) -> Any:
        """Returns the path of the reply to `request`, whether it exists or not."""
        key = request.key
        return self.directory / key[:2] / f"{key}.json"

    def get(self, request: ChatRequest) -> Reply | None:
        """Returns the kept reply, or None; adds the path of an unusable file to `damaged`."""
        path = self.path(request)
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            value = strict_json.loads(data, path)
            if value["request"] != request.record():
                raise ValueError("another request")
            return _reply(value["reply"])
        except (UserError, ValueError, KeyError, TypeError):
            self.damaged.append(str(path))
            return None

    def put(self, request: ChatRequest, reply: Reply) -> None:
        """Writes `reply`, whole or not at all; raises UserError as `files.replace_with` does."""
        kept = {k: v for k, v in dataclasses.asdict(reply).items() if k != "cached"}
        # ASCII: an answer may hold half a surrogate pair, which UTF-8 cannot encode.
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
