"""The flags of commands that ask an endpoint (`ait-jax judge`, `grow`); imports nothing slow."""

import argparse
from typing import Any

from ait_jax.errors import UserError
from ait_jax.runtime import files

# Flags without effect unless an endpoint is asked; their default is None.
_OF_AN_ENDPOINT = ("model", "base_url", "prices", "budget", "cache_dir")
_CACHE = "ait_jax/endpoint in XDG_CACHE_HOME, else ~/.cache"


def add(parser: argparse.ArgumentParser, cache: str = _CACHE) -> None:
    """Adds an endpoint's flags in their own group; `cache` is the default --cache_dir, in words."""
    group = parser.add_argument_group(
        "endpoint",
        "any server of OpenAI's chat completions; its key comes from OPENAI_API_KEY only\n"
        "(a local one needs none). Needs: pip install 'ait-jax[endpoint]'",
    )
    flags: dict[str, tuple[Any, Any, str]] = {
        "model": (str, None, "its name at the endpoint"),
        "base_url": (str, None, "http://localhost:8000/v1, ... (default: OPENAI_BASE_URL, else "
                     "OpenAI)"),
        "prices": (str, None, "dollars per million input and output tokens: 0.15,0.60"),
        "budget": (float, None, "spend no more in this run; 0 answers from the cache only "
                   "(default: no limit)"),
        "cache_dir": (str, None, "where answers are kept, so that none is paid for twice "
                      f"(default: {cache})"),
        "concurrency": (int, 8, "requests at once"),
        "timeout_s": (float, 60, "per attempt"),
        "max_attempts": (int, 6, "per request"),
        "tokens_name": (str, "max_tokens", "the endpoint's name for the token limit; "
                        "max_completion_tokens for OpenAI's reasoning models"),
        "temperature": (_temperature, 0.0, "of the answers; none leaves it out of the requests, "
                        "for models that take only their own"),
    }  # fmt: skip
    metavars = {"prices": "IN,OUT", "budget": "DOLLARS", "temperature": "NUMBER"}
    for name, (kind, default, text) in flags.items():
        group.add_argument(
            f"--{name}",
            type=kind,
            default=default,
            metavar=metavars.get(name),
            help=text + (" (default: %(default)s)" if default is not None else ""),
        )


def given(options: argparse.Namespace) -> list[str]:
    """Returns which flags of an endpoint were given: ["--model"]."""
    return [f"--{name}" for name in _OF_AN_ENDPOINT if getattr(options, name) is not None]


def build(options: argparse.Namespace, cache_dir: Any = None) -> Any:
    """Returns the `endpoint.Endpoint` that the flags describe; raises UserError.

    Without --cache_dir answers are kept in `cache_dir`, and if that is None in the user's cache.
    """
    from ait_jax.endpoint.endpoint import Endpoint, Pacing

    if not options.model:
        raise UserError("--model is missing: give the model's name at the endpoint.")
    return Endpoint(
        base_url=options.base_url,
        model=options.model,
        cache_dir=options.cache_dir or cache_dir or files.user_cache("endpoint"),
        prices=_prices(options.prices),
        budget=options.budget,
        pacing=Pacing(options.concurrency, options.timeout_s, options.max_attempts),
        tokens_name=options.tokens_name,
        temperature=options.temperature,
    )


def _temperature(text: str) -> float | None:
    return None if text.lower() == "none" else float(text)


def _prices(text: str | None) -> Any:
    from ait_jax.endpoint.chat import Prices

    if text is None:
        return None
    try:
        price_in, price_out = map(float, text.split(","))
    except ValueError:
        raise UserError(
            f"--prices={text} must be two numbers, dollars per million input and output tokens: "
            "--prices=0.15,0.60."
        ) from None
    return Prices(price_in, price_out)
