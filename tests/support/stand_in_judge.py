"""A judge without a model, over HTTP: it prefers the longer answer, and the first if in doubt.

    python tests/support/stand_in_judge.py            # prints its base URL and serves until Ctrl-C

Its position bias must become ties of a judgement that asks in both orders.
"""

import contextlib
import re
import time

from misbehaving_endpoint import MisbehavingEndpoint

MARGIN = 1.2  # shorter than so many times the other: in doubt


def preference(first: str, second: str) -> str:
    """Returns FIRST or SECOND."""
    return "SECOND" if len(second) > MARGIN * len(first) else "FIRST"


def read(body) -> tuple[str, str]:
    """Returns the two answers that a request of ait_jax.evaluation.judge_prompt holds."""
    text = body["messages"][1]["content"]
    mark = re.match(r"\[#[0-9a-f]{16}\]", text)[0]
    parts = text.split(mark)
    names = [part.split("\n", 1)[0].strip() for part in parts[1:]]
    assert names == ["INSTRUCTION", "INPUT", "FIRST ANSWER", "SECOND ANSWER", "END"], names
    return parts[3].split("\n", 1)[1][:-1], parts[4].split("\n", 1)[1][:-1]


def answer(body) -> str:
    """Returns the verdict on a request."""
    return preference(*read(body))


def main() -> None:
    with MisbehavingEndpoint(answer) as server:
        server.tokens = (400, 1)  # about as many as a request of the 252 instructions has
        print(server.base_url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    main()
