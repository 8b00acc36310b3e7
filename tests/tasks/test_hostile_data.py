"""Whatever a data file holds, the readers of pools return values or say one thing."""

import json

from ait_jax.tasks.grow import cards, dictionaries
from ait_jax.tasks.grow.dataset import Tally
from ait_jax.tasks.grow.proposal import proposal_from_json
from ait_jax.tasks.grow.sources import DatasetLines, read_instructions
from hypothesis import given
from hypothesis import strategies as st
from test_niv2 import task_json
from tiny_datasets import CARD, reviews

from ait_jax.errors import UserError
from ait_jax.pool import cls_gen, read_task
from ait_jax.pool.instruction_rows import Findings, read_rows

KEYS = st.sampled_from(
    ["instruction", "input", "output", "prompt", "completion", "messages", "conversations", "role",
     "content", "from", "value", "system", "history", "instances", "data", "id", "context",
     "response", "task_name", "selected_data", "Definition", "Instances", "input_fields", "a"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.sampled_from(["user", "assistant", "human", "gpt", "\ud83d", "x" * 300]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)  # fmt: skip
SEEDS = [
    json.dumps([{"instruction": "I", "input": "x", "output": "o"}] * 3, indent=1),
    '{"instruction": "I", "output": "o"}\n{"messages": [{"role": "user", "content": "c"}]}\n',
    json.dumps(task_json("t")),
    json.dumps(reviews(num_rows=2)),
    CARD,
    "{'task1': {'instruction': 'I', 'input_fields': ['a'], 'output_field': ['b']}}",
]


@st.composite
def damaged(draw):
    """A file of a known kind with bytes changed, taken out, repeated or put in."""
    data = bytearray(draw(st.sampled_from(SEEDS)).encode())
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 30)))
        new = draw(st.binary(max_size=8) | st.just(bytes(data[start:stop]) * 3))
        data[start:stop] = new
    return bytes(data)


def one_line(call):
    """Returns what a reader returns; its only error is a UserError of one line."""
    try:
        return call()
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) <= 4000
        assert str(error).isprintable()
        return None


def read_everything(path):
    one_line(lambda: list(read_rows(path, Findings())))
    one_line(lambda: read_task(path))
    one_line(lambda: cls_gen.labels_from_file(path))
    one_line(lambda: list(DatasetLines(path).read(Tally())))
    one_line(lambda: read_instructions(path, Tally()))


@given(damaged())
def test_damaged_files(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_bytes(data)
    read_everything(path)
    folder = tmp_path_factory.getbasetemp() / "cards"
    folder.mkdir(exist_ok=True)
    (folder / "a.md").write_bytes(data)
    one_line(lambda: list(cards.read_cards(folder, Tally())))
    found, _ = dictionaries.parse(data.decode("utf-8", "surrogateescape"))
    for value in found:
        proposal_from_json(value, "d")


@given(JSON, st.booleans())
def test_values_of_any_shape(tmp_path_factory, value, is_list):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps([value, value] if is_list else value))
    findings = Findings()
    rows = one_line(lambda: list(read_rows(path, findings)))
    for row in rows or ():
        assert row.instruction.strip()
        json.dumps([row.instruction, row.instances]).encode()
        "".join(text for text, _ in row.instances).encode()
    "".join(Findings.describe(findings.bad) + Findings.describe(findings.noted)).encode()
    read_everything(path)
