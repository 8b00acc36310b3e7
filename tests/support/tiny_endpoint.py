"""What tests of the endpoint share: a server that answers in upper case, and a client of it."""

import dataclasses

import pytest
from misbehaving_endpoint import MisbehavingEndpoint

from ait_jax.endpoint.endpoint import Endpoint, Pacing

KEY = "sk-test-0123456789abcdefSECRET"


def message(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def messages(count: int) -> list[list[dict[str, str]]]:
    return [message(f"t{i}") for i in range(count)]


def texts(replies) -> list[str | None]:
    return [reply.text for reply in replies]


def shout(body) -> str:
    return body["messages"][-1]["content"].upper()


@pytest.fixture
def server(monkeypatch):
    """A well-behaved server until told otherwise; no key and no proxy in the environment."""
    pytest.importorskip("openai", reason="needs the `endpoint` extra")
    pytest.importorskip("tenacity", reason="needs the `endpoint` extra")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with MisbehavingEndpoint(shout) as running:
        yield running


@pytest.fixture
def connect(server, tmp_path):
    """Returns a function that makes an Endpoint of `server` with short pauses."""

    def make(**options) -> Endpoint:
        names = {field.name for field in dataclasses.fields(Pacing)} & set(options)
        pacing = {"timeout_s": 5, "backoff_s": 0.01} | {name: options.pop(name) for name in names}
        given = {"base_url": server.base_url, "cache_dir": tmp_path / "cache", "model": "m"}
        given |= {"pacing": Pacing(**pacing)} | options
        return Endpoint(**given)

    return make
