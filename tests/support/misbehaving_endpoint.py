"""A local HTTP server that speaks OpenAI's chat completions, and misbehaves on command.

    with MisbehavingEndpoint() as server:
        server.answer = lambda body: body["messages"][-1]["content"].upper()
        server.script = [status(429, {"Retry-After": "0"}), hang(2.0), truncated()]
        Endpoint(server.base_url, ...).ask(...)

Each request takes the next entry of `script`; when that is used up, `then` if it is set, else
the request is answered well: by `answer`, a function from the request's JSON to text. A
misbehaviour is a function (handler, body) that writes what it likes.
"""

import contextlib
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Misbehaviour = Callable[["_Handler", dict[str, Any]], None]


class MisbehavingEndpoint:
    """The server; a context manager.

    Attributes:
      base_url: to give to a client.
      answer: request's JSON -> text of the good answers.
      script: misbehaviours of the next requests, in the order of their arrival; None in it is
        a good answer.
      then: misbehaviour of all later requests, or None.
      delay_s: before each good answer.
      requests: the JSON of all requests.
      headers: of all requests.
      most_at_once: the most requests that were here at the same time.
      tokens: prompt and completion tokens that good answers report.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], str] = lambda body: "yes"):
        self.answer = answer
        self.script: list[Misbehaviour | None] = []
        self.then: Misbehaviour | None = None
        self.delay_s = 0.0
        self.tokens = (10, 5)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.owner = self
        self._closing = threading.Event()
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _arrived(self, body: dict[str, Any], headers: Mapping[str, str]) -> Misbehaviour:
        with self._lock:
            self.requests.append(body)
            self.headers.append({name.lower(): value for name, value in headers.items()})
            self.times.append(time.monotonic())
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            planned = self.script.pop(0) if self.script else self.then
        return planned or good

    def _left(self) -> None:
        with self._lock:
            self._now -= 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            return self.send(404, {"error": {"message": f"no such page {self.path}"}})
        misbehaviour = owner._arrived(body, self.headers)
        try:
            misbehaviour(self, body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            owner._left()

    def send(self, status: int, value: Any, headers: Mapping[str, str] = {}) -> None:
        """Sends a whole response: bytes as they are, anything else as JSON."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        """Silent: tests print nothing."""


def completion(text: str | None, body: Mapping[str, Any], tokens=(10, 5)) -> dict[str, Any]:
    """Returns a well-formed chat completion."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": tokens[0],
            "completion_tokens": tokens[1],
            "total_tokens": sum(tokens),
        },
    }


def good(handler: _Handler, body: dict[str, Any]) -> None:
    """Answers as an endpoint should."""
    owner = handler.server.owner
    if owner.delay_s:
        owner._closing.wait(owner.delay_s)
    handler.send(200, completion(owner.answer(body), body, owner.tokens))


def status(
    number: int, headers: Mapping[str, str] = {}, message: str = "no", **error: str
) -> Misbehaviour:
    """An error of HTTP as OpenAI writes it: status(429, {"Retry-After": "1"})."""
    value = {"error": {"message": message, "type": None, "code": None, **error}}
    return lambda handler, body: handler.send(number, value, headers)


def hang(seconds: float) -> Misbehaviour:
    """No byte for so long; then the connection closes."""

    def misbehave(handler, body):
        handler.server.owner._closing.wait(seconds)
        _close(handler)

    return misbehave


def trickle(seconds: float) -> Misbehaviour:
    """A body that comes byte by byte, so that no single read takes long."""

    def misbehave(handler, body):
        data = json.dumps(completion("late", body)).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        for i in range(len(data)):
            handler.wfile.write(data[i : i + 1])
            if handler.server.owner._closing.wait(seconds / len(data)):
                return

    return misbehave


def closed() -> Misbehaviour:
    """The connection closes without a response."""
    return lambda handler, body: _close(handler)


def truncated() -> Misbehaviour:
    """Headers promise more bytes than come."""

    def misbehave(handler, body):
        data = json.dumps(completion("cut", body)).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2])
        handler.wfile.flush()
        _close(handler)

    return misbehave


def endless() -> Misbehaviour:
    """A body that never ends, as fast as it can."""

    def misbehave(handler, body):
        handler.send_response(200)
        handler.end_headers()
        while not handler.server.owner._closing.is_set():
            handler.wfile.write(b" " * 65536)

    return misbehave


def bomb(megabytes: int, code: int = 200) -> Misbehaviour:
    """A short body of gzip that is megabytes of spaces; none was asked for."""
    data = gzip.compress(b" " * (megabytes << 20))
    return lambda handler, body: handler.send(code, data, {"Content-Encoding": "gzip"})


def redirect(code: int, where: str) -> Misbehaviour:
    """Sends the client elsewhere."""
    return lambda handler, body: handler.send(code, b"", {"Location": where})


def cut_json() -> Misbehaviour:
    """A whole response whose JSON breaks off."""
    return lambda handler, body: handler.send(200, json.dumps(completion("a", body)).encode()[:90])


def page() -> Misbehaviour:
    """A page of HTML with status 200, as proxies send it."""
    return lambda handler, body: handler.send(
        200, b"<html>Sign in</html>", {"Content-Type": "text/html"}
    )


def wrong_schema() -> Misbehaviour:
    """JSON that is no chat completion."""
    return lambda handler, body: handler.send(200, {"result": ["something", "else"]})


def no_choices() -> Misbehaviour:
    """A chat completion without choices."""
    return lambda handler, body: handler.send(200, {**completion("", body), "choices": []})


def says(text: str | None) -> Misbehaviour:
    """A well-formed completion whose text is prose, broken JSON, nothing (None) ..."""
    return lambda handler, body: handler.send(200, completion(text, body))


def echo_key(code: int = 400) -> Misbehaviour:
    """An error, or an answer for 200, that repeats the request's Authorization header."""

    def misbehave(handler, body):
        header = handler.headers.get("Authorization", "")
        if code == 200:
            return handler.send(200, completion(f"You sent {header}.", body))
        error = {"message": f"bad header: {header}", "headers": {"Authorization": header}}
        value = {"error": error}
        return handler.send(code, value, {"X-Echo": header})

    return misbehave


def _close(handler: _Handler) -> None:
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)
