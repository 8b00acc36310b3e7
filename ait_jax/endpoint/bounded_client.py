"""An HTTP client that believes no server: bounded replies, and no other host is ever asked."""

import asyncio
import zlib
from typing import Any

from ait_jax.errors import shown

MOST_BYTES = 4 << 20  # of a reply, decompressed
_MOST_REDIRECTS = 5
_ENCODINGS = {"gzip": 47, "x-gzip": 47, "deflate": 47}  # zlib's wbits: gzip or zlib, by its header


class BadReply(Exception):
    """A reply that is not read: too long, or compressed in another way."""


class Redirected(Exception):
    """The server sends the request elsewhere.

    Attributes:
      status: the HTTP status.
    """

    def __init__(self, status: int, where: str) -> None:
        super().__init__(
            f"it redirects to {shown(where)}, which the question and the key do not follow; give "
            "that as the base URL if it is right"
        )
        self.status = status


def bounded_client(timeout_s: float) -> Any:
    """Returns an HTTP client for `openai.AsyncOpenAI`; its replies are read to their end.

    `send` raises BadReply and Redirected.
    """
    import openai

    class Client(openai.DefaultAsyncHttpxClient):
        async def send(self, request: Any, **options: Any) -> Any:
            options |= {"stream": True, "follow_redirects": False}
            origin = _origin(request.url)
            for _ in range(_MOST_REDIRECTS):
                response = await super().send(request, **options)
                try:
                    following = response.next_request
                    if following is None:
                        return await _read(response)
                    if _origin(following.url) != origin or following.method != request.method:
                        raise Redirected(response.status_code, str(following.url))
                    request = following
                finally:
                    await response.aclose()
            raise Redirected(response.status_code, str(request.url))

    # Compressed replies would be short anyway, and cannot be longer than they look.
    return Client(timeout=timeout_s, headers={"Accept-Encoding": "identity"})


def _origin(url: Any) -> tuple[Any, ...]:
    return url.scheme, url.host, url.port


async def _read(response: Any) -> Any:
    """Returns the response with its whole body, decompressed."""
    headers = response.headers.copy()
    encoding = headers.pop("content-encoding", "identity").strip().lower()
    unzip = zlib.decompressobj(_ENCODINGS[encoding]) if encoding in _ENCODINGS else None
    if unzip is None and encoding != "identity":
        raise BadReply(f"it is compressed as {shown(encoding)}, which was not asked for")
    for name in ("content-length", "transfer-encoding"):
        headers.pop(name, None)
    body = bytearray()
    async for data in response.aiter_raw():
        try:
            body += unzip.decompress(data, MOST_BYTES + 1 - len(body)) if unzip else data
        except zlib.error as error:
            raise BadReply(f"its compression is damaged: {error}") from None
        if len(body) > MOST_BYTES:
            raise BadReply(f"it is longer than {MOST_BYTES >> 20} MB")
        await asyncio.sleep(0)  # lets the time-out see a stream that never pauses
    return type(response)(
        response.status_code, headers=headers, content=bytes(body), request=response.request
    )
