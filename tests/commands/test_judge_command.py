"""`ait-jax judge` from the command line, against a stand-in judge over HTTP."""

import json

import pytest
import stand_in_judge
from misbehaving_endpoint import closed, good, status
from tiny_endpoint import KEY, connect, server  # noqa: F401

from ait_jax import cli
from ait_jax.runtime import files


@pytest.fixture
def judge(server, tmp_path, monkeypatch, capsys):
    """Returns a function that runs the command: exit code, standard output, standard error."""
    server.answer = stand_in_judge.answer
    monkeypatch.chdir(tmp_path)
    for name, letter in (("a", "x"), ("b", "yy")):
        rows = [{"instruction": f"i{i}", "response": letter * 9, "target": "t"} for i in range(8)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*arguments, endpoint=True):
        given = ["judge", "a.jsonl", "b.jsonl", "--cache_dir=cache", *arguments]
        if endpoint:
            given += ["--model=m", f"--base_url={server.base_url}"]
        code = cli.main(given)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_judge(judge, server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    code, out, err = judge("--prices=1,2", "--budget=1")
    assert (code, err) == (0, "") and "a lose:    8 of 8 = 100.0%" in out
    assert "16 answers paid for" in out and out.endswith("written: judgement.json\n")
    assert KEY not in out and "sk-" not in (tmp_path / "judgement.json").read_text()
    assert judge("--budget=0", "--out=deep/other.json")[0] == 0  # all of it is in the cache
    assert len(server.requests) == 16 and (tmp_path / "deep" / "other.json").exists()


def test_offline_needs_no_endpoint(judge, server, tmp_path):
    code, out, _ = judge("--offline", endpoint=False)
    assert code == 0 and "ROUGE-L of a: 0.00" in out and server.requests == []
    assert "judgement" not in json.loads((tmp_path / "judgement.json").read_text())


def test_a_run_that_stops_says_that_the_same_command_continues(judge, server):
    server.script, server.then = [None] * 8, closed()
    # One at a time: a late success of another request would end the row of failures.
    code, _out, err = judge("--concurrency=1", "--max_attempts=1")
    assert code == 3 and "the same command continues" in err and "in a row" in err
    server.then = None
    code, _out, err = judge("--budget=0")
    assert code == 3 and "the budget of $0 is used up; the results so far are kept" in err
    before = len(server.requests)
    assert judge()[0] == 0 and len(server.requests) - before == 16 - 8


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--prices=1"], "--prices=1 must be two numbers"),
        (["--budget=1"], "needs prices"),
        (["--base_url=nowhere"], "must look like"),
        (["--max_tokens=0"], "max_tokens = 0"),
        (["--instructions=nowhere.jsonl"], "nowhere.jsonl: cannot read the file"),
        (["--modl=x"], "Did you mean '--model'?"),
        (["--gin.A=1"], "takes no gin flags"),
        (["--on_mismatch=ignore"], "invalid choice"),
    ],
)
def test_mistakes_are_one_line(judge, server, tmp_path, arguments, text):
    ending = [] if arguments[0].startswith("--base_url") else [f"--base_url={server.base_url}"]
    code, _out, err = judge("--model=m", *ending, *arguments, endpoint=False)
    assert code == 2 and text in err and err.count("\n") == 1
    assert not (tmp_path / "judgement.json").exists() and server.requests == []


def test_no_model_and_a_refused_key(judge, server, tmp_path):
    code, _, err = judge(endpoint=False)
    assert code == 2 and "--model is missing" in err
    server.then = status(401, message="no such key")
    code, _, err = judge()
    assert code == 2 and "OPENAI_API_KEY" in err and not (tmp_path / "judgement.json").exists()


def test_the_default_cache_is_the_users(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert files.user_cache("endpoint") == "/somewhere/ait_jax/endpoint"


@pytest.mark.parametrize("refusal", [{}, {"code": "content_filter"}])
def test_few_requests_that_all_fail_are_unfinished(judge, server, tmp_path, refusal):
    for name in ("a", "b"):
        first = (tmp_path / f"{name}.jsonl").read_text().splitlines()[0]
        (tmp_path / f"{name}.jsonl").write_text(first + "\n")
    server.then = status(400 if refusal else 500, **refusal)
    code, _out, err = judge("--max_attempts=1")
    assert code == 3 and "the same command continues" in err
    server.then = None
    assert judge()[0] == 0


def test_a_judge_that_takes_no_temperature(judge, server):
    """As OpenAI's reasoning models: max_completion_tokens, and a temperature of 1 or none."""

    def picky(handler, body):
        if body.get("temperature", 1) != 1 or "max_tokens" in body:
            return status(400, message="temperature must be 1 for this model.")(handler, body)
        return good(handler, body)

    server.then = picky
    flags = "--tokens_name=max_completion_tokens", "--max_tokens=2000"
    code, _out, err = judge(*flags)
    assert code == 2 and "--temperature=none" in err
    assert judge(*flags, "--temperature=none")[0] == 0
    assert judge(*flags, "--temperature=1")[0] == 0
    code, _out, err = judge("--temperature=warm")
    assert code == 2 and "--temperature" in err
