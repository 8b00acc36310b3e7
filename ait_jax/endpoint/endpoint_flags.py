"""The flags of commands that ask an endpoint (`ait-jax judge`, `grow`); imports nothing slow."""

import argparse
import os
from collections.abc import Callable
from typing import Any

from ait_jax.errors import UserError

_PRICES = "IN,OUT"
# Flags that say nothing where no endpoint is asked, and whose default is None.
_OF_AN_ENDPOINT = ("model", "base_url", "prices", "budget", "cache_dir")
_CACHE = "ait_jax/endpoint in XDG_CACHE_HOME, else ~/.cache"


def add(parser: argparse.ArgumentParser, cache: str = _CACHE) -> None:
    """Adds the flags of an endpoint, in a group of their own.

    Args:
      cache: where answers are kept by default, in words.
    """
    group = parser.add_argument_group(
        "endpoint",
        "any server of OpenAI's chat completions; its key comes from OPENAI_API_KEY alone\n"
        "(a local one needs none). Needs: pip install 'ait-jax[endpoint]'",
    )
    group.add_argument("--model", help="the name that the endpoint knows it by")
    group.add_argument(
        "--base_url", help="http://localhost:8000/v1, ... (default: OPENAI_BASE_URL, else OpenAI)"
    )
    group.add_argument(
        "--prices", metavar=_PRICES, help="dollars for a million input and output tokens: 0.15,0.60"
    )
    group.add_argument(
        "--budget",
        type=float,
        metavar="DOLLARS",
        help="spend no more in this run; 0 answers from the cache alone (default: no limit)",
    )
    group.add_argument(
        "--cache_dir",
        help=f"where answers are kept, so that none is paid twice (default: {cache})",
    )
    group.add_argument(
        "--concurrency", type=int, default=8, help="requests at once (default: %(default)s)"
    )
    group.add_argument(
        "--timeout_s", type=float, default=60, help="of one attempt (default: %(default)s)"
    )
    group.add_argument(
        "--max_attempts", type=int, default=6, help="of one request (default: %(default)s)"
    )
    group.add_argument(
        "--tokens_name",
        default="max_tokens",
        help="the endpoint's name for the limit of tokens; max_completion_tokens for OpenAI's "
        "reasoning models (default: %(default)s)",
    )


def given(options: argparse.Namespace) -> list[str]:
    """Returns which flags of an endpoint were given: ["--model"]."""
    return [f"--{name}" for name in _OF_AN_ENDPOINT if getattr(options, name) is not None]


def build(
    options: argparse.Namespace, report: Callable[[str], None] = print, cache_dir: Any = None
):
    """Returns the `endpoint.Endpoint` that the flags describe. Raises UserError.

    Args:
      cache_dir: where answers are kept unless a flag says it; None for `default_cache_dir`.
    """
    from ait_jax.endpoint.endpoint import Endpoint

    if not options.model:
        raise UserError("--model is missing: the name by which the endpoint knows the model.")
    return Endpoint(
        base_url=options.base_url,
        model=options.model,
        cache_dir=options.cache_dir or cache_dir or default_cache_dir(),
        concurrency=options.concurrency,
        timeout_s=options.timeout_s,
        max_attempts=options.max_attempts,
        prices=_prices(options.prices),
        budget=options.budget,
        report=report,
        tokens_name=options.tokens_name,
    )


def default_cache_dir() -> str:
    """Returns the folder for answers when no flag names one."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "ait_jax", "endpoint")


def _prices(text: str | None):
    from ait_jax.endpoint.chat import Prices

    if text is None:
        return None
    try:
        price_in, price_out = map(float, text.split(","))
    except ValueError:
        raise UserError(
            f"--prices={text} must be two numbers, dollars for a million input and output tokens: "
            "--prices=0.15,0.60."
        ) from None
    return Prices(price_in, price_out)
