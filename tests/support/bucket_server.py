"""A bucket on loopback: the part of Cloud Storage's JSON API that gcsfs and TensorStore use.

Objects appear whole when their upload ends, have generations that conditions can ask for, and
there are neither folders nor renames: what a program that took a bucket for a disk trips over.
"""

import base64
import datetime
import json
import sys
import threading
import urllib.parse
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import google_crc32c


@dataclass
class Blob:
    data: bytes
    generation: int
    updated: str
    metadata: dict = field(default_factory=dict)


class Bucket:
    """All objects of all buckets by "bucket/name", in memory.

    Attributes:
      refuses: answers everything with this status while it is set.
      requests: (method, path) of every request.
    """

    def __init__(self):
        self.blobs: dict[str, Blob] = {}
        self.uploads: dict[str, tuple[str, bytes, dict]] = {}
        self.lock = threading.RLock()
        self.generation = 1_000
        self.refuses = 0
        self.requests: list[tuple[str, str]] = []

    def put(self, key: str, data: bytes, metadata: dict | None = None) -> Blob:
        with self.lock:
            self.generation += 1
            now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            self.blobs[key] = Blob(data, self.generation, now, metadata or {})
            return self.blobs[key]

    def names(self, prefix: str = "") -> list[str]:
        with self.lock:
            return sorted(key for key in self.blobs if key.startswith(prefix))

    def read(self, key: str) -> bytes:
        return self.blobs[key].data


class _Refused(Exception):
    def __init__(self, status: int):
        super().__init__(status)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def log_message(self, *_):
        pass

    def _serve(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = self._chunks()
        self.bucket.requests.append((self.command, self.path))
        try:
            if self.bucket.refuses:
                raise _Refused(self.bucket.refuses)
            with self.bucket.lock:
                status, headers, answer = self._answer(self.command, self.path, self.headers, body)
        except _Refused as refused:
            status, headers = refused.status, {}
            answer = json.dumps({"error": {"code": status, "message": str(status)}}).encode()
        if status in (204, 304):  # without a body, or the next answer is taken for it
            answer = b""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        with suppress(ConnectionError):  # A client that was killed, or has heard enough.
            self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, method, path, headers, body):
        url = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(url.query))
        words = [urllib.parse.unquote(word) for word in url.path.strip("/").split("/")]
        if words[0] == "batch":
            return self._batch(headers, body)
        if words[0] == "upload":
            return self._upload(words[4], query, headers, body)
        if words[0] == "download":
            words, query = words[1:], {**query, "alt": "media"}
        if words[:3] != ["storage", "v1", "b"]:
            raise _Refused(404)
        if len(words) == 4:
            return _json({"kind": "storage#bucket", "name": words[3], "location": "US"})
        if len(words) == 5:
            return _json(self._list(words[3], query))
        key = f"{words[3]}/{words[5]}"
        if len(words) > 6:
            target = (
                f"{words[8]}/{words[10]}" if words[6] == "rewriteTo" else f"{words[3]}/{words[8]}"
            )
            return self._copy(key, target, query, move=words[6] == "moveTo")
        if method == "DELETE":
            self._condition(key, query)
            if self.bucket.blobs.pop(key, None) is None:
                raise _Refused(404)
            return 204, {}, b""
        return self._get(key, query, headers)

    def _condition(self, key, query):
        blob = self.bucket.blobs.get(key)
        generation = blob.generation if blob else 0
        if int(query.get("ifGenerationMatch", generation)) != generation:
            raise _Refused(412)
        if int(query.get("ifGenerationNotMatch", -1)) == generation:
            raise _Refused(304)

    def _get(self, key, query, headers):
        blob = self.bucket.blobs.get(key)
        if blob is None:
            raise _Refused(404)
        self._condition(key, query)
        if query.get("alt") != "media":
            return _json(_describe(key, blob))
        known = {
            "X-Goog-Generation": str(blob.generation),
            "Content-Type": "application/octet-stream",
        }
        wanted = headers.get("Range")
        if not wanted:
            return 200, known, blob.data
        first, last = wanted.removeprefix("bytes=").split("-")
        total = len(blob.data)
        start = int(first) if first else max(0, total - int(last))
        end = min(total, int(last) + 1) if first and last else total
        if start >= total:
            raise _Refused(416)
        known["Content-Range"] = f"bytes {start}-{end - 1}/{total}"
        return 206, known, blob.data[start:end]

    def _list(self, bucket, query):
        prefix = f"{bucket}/{query.get('prefix', '')}"
        names = [name.removeprefix(f"{bucket}/") for name in self.bucket.names(prefix)]
        start = max(query.get("startOffset", ""), query.get("pageToken", ""))
        end = query.get("endOffset")
        items, folders = [], []
        limit = int(query.get("maxResults", 1000))
        answer = {"kind": "storage#objects"}
        for name in names:
            if name < start or (end and name >= end):
                continue
            if len(items) + len(folders) == limit and not any(map(name.startswith, folders)):
                answer["nextPageToken"] = name
                break
            rest = name.removeprefix(query.get("prefix", ""))
            mark = query.get("delimiter")
            if mark and mark in rest:
                folder = name[: len(name) - len(rest)] + rest.split(mark)[0] + mark
                if folder not in folders:
                    folders.append(folder)
            else:
                key = f"{bucket}/{name}"
                items.append(_describe(key, self.bucket.blobs[key]))
        return (
            answer
            | ({"items": items} if items else {})
            | ({"prefixes": folders} if folders else {})
        )

    def _copy(self, key, target, query, move):
        if key not in self.bucket.blobs:
            raise _Refused(404)
        self._condition(target, query)
        blob = self.bucket.put(target, self.bucket.blobs[key].data)
        if move:
            del self.bucket.blobs[key]
            return _json(_describe(target, blob))
        size = str(len(blob.data))
        done = {"done": True, "objectSize": size, "totalBytesRewritten": size}
        return _json(done | {"resource": _describe(target, blob)})

    def _upload(self, bucket, query, headers, body):
        kind = query.get("uploadType")
        if "upload_id" in query:
            return self._resume(query["upload_id"], headers, body)
        if kind == "resumable":
            known = json.loads(body or b"{}")
            upload = str(len(self.bucket.uploads) + 1)
            key = f"{bucket}/{query.get('name') or known['name']}"
            self.bucket.uploads[upload] = (key, b"", query)
            where = f"http://{self.headers['Host']}{self.path}&upload_id={upload}"
            return 200, {"Location": where}, b"{}"
        name = query.get("name")
        if kind == "multipart":
            known, body = _multipart(headers, body)
            name = known.get("name", name)
        return self._store(f"{bucket}/{name}", body, query)

    def _resume(self, upload, headers, body):
        key, data, query = self.bucket.uploads[upload]
        data += body
        self.bucket.uploads[upload] = (key, data, query)
        total = headers.get("Content-Range", "*/*").rsplit("/", 1)[1]
        if total == "*" or int(total) > len(data):
            return 308, {"Range": f"bytes=0-{len(data) - 1}"} if data else {}, b""
        return self._store(key, data, query)

    def _store(self, key, data, query):
        self._condition(key, query)
        return _json(_describe(key, self.bucket.put(key, data)))

    def _batch(self, headers, body):
        """Many small requests in one, deletions here."""
        mark = headers["Content-Type"].split("boundary=")[1].strip('"')
        answers = []
        for part in body.split(f"--{mark}".encode())[1:-1]:
            line = next(text for text in part.decode().splitlines() if text.startswith("DELETE "))
            try:
                status, _, _ = self._answer("DELETE", line.split()[1], {}, b"")
            except _Refused as refused:
                status = refused.status
            answers.append(f"Content-Type: application/http\r\n\r\nHTTP/1.1 {status} X\r\n\r\n\r\n")
        text = "".join(f"--answer\r\n{answer}" for answer in answers) + "--answer--"
        return 200, {"Content-Type": "multipart/mixed; boundary=answer"}, text.encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Says what went wrong here; a client that was killed is nothing wrong."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _json(value):
    return 200, {}, json.dumps(value).encode()


def _describe(key: str, blob: Blob) -> dict:
    bucket, name = key.split("/", 1)
    crc = base64.b64encode(google_crc32c.Checksum(blob.data).digest()).decode()
    return {
        "kind": "storage#object",
        "id": f"{key}/{blob.generation}",
        "bucket": bucket,
        "name": name,
        "size": str(len(blob.data)),
        "generation": str(blob.generation),
        "metageneration": "1",
        "crc32c": crc,
        "timeCreated": blob.updated,
        "updated": blob.updated,
    }


def _multipart(headers, body: bytes) -> tuple[dict, bytes]:
    """Returns the two parts: what is known of the object, and its bytes."""
    mark = headers["Content-Type"].split("boundary=")[1].strip("\"'").encode()
    parts = body.split(b"--" + mark)[1:-1]
    line_end = b"\r\n" if parts[0].startswith(b"\r\n") else b"\n"
    known, data = (part.split(2 * line_end, 1)[1].removesuffix(line_end) for part in parts)
    return json.loads(known), data


@contextmanager
def serving():
    """Yields (the bucket, its address) while a server answers for it."""
    bucket = Bucket()
    handler = type("Handler", (_Handler,), {"bucket": bucket})
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield bucket, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def environment(address: str) -> dict[str, str]:
    """What makes gcsfs and TensorStore go there, without credentials."""
    return {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "GOOGLE_CLOUD_PROJECT": "test",
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "test",
    }
