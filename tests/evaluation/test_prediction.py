"""Which instances are answered: the first ones, or as the authors shuffle those of dev tasks."""

import random
import types
from typing import Any

from ait_jax.evaluation import prediction
from ait_jax.pool import Instance, Instruction, Task, TaskPool
from ait_jax.prompts.prompts import TkInstructEncoding
from ait_jax.scorer.asker import Asker


def pool_of(**sizes):
    return TaskPool(
        Task(
            name, Instruction("x"), tuple(Instance(f"{name}{i}", str(i), ("x",)) for i in range(n))
        )
        for name, n in sizes.items()
    )


POOL = pool_of(test1=7, test2=120, dev1=60, dev2=3)


class Words:
    """As much of an asker and its vocabulary as answers need: it repeats the prompt's end."""

    def __init__(self, pool):
        self.pool, self.vocabulary, self.engine, self.params = pool, self, self, None
        self.encoding = TkInstructEncoding()
        self.partitioner = types.SimpleNamespace(own=list, first_of_groups=list)

    def count_tokens(self, text):
        return 1

    truncate = None
    prompt_of = Asker.prompt_of

    def encode_source(self, text, most):
        return text.rpartition("Input: ")[2].split(".")[0]

    def decode(self, *arguments):
        return arguments[0] if len(arguments) == 1 else types.SimpleNamespace(tokens=arguments[1])


def asker() -> Any:
    return Words(POOL)


def test_the_first_instances_are_answered():
    answers = prediction.predict(asker(), ["dev1", "dev2"], max_instances=4)
    assert [a.instance_id for a in answers] == [
        *(f"dev1{i}" for i in range(4)),
        *(f"dev2{i}" for i in range(3)),
    ]
    assert [a.prediction for a in answers] == ["0", "1", "2", "3", "0", "1", "2"]


def test_dev_instances_are_the_authors():
    # ni_dataset.py: the generator is seeded once, then shuffles one task's list after the other.
    random.seed(42)
    expected = {}
    for name in ("test1", "test2", "dev1", "dev2"):
        instances = list(POOL[name].instances)
        random.shuffle(instances)
        expected[name] = [instance.id for instance in instances[:50]]
    orders = prediction.shuffled_positions(POOL, ("test1", "test2", "dev1", "dev2"), 42)
    answers = prediction.predict(asker(), ["dev1", "dev2"], max_instances=50, positions=orders)
    assert [a.instance_id for a in answers] == expected["dev1"] + expected["dev2"]
    assert len(answers) == 53 and expected["dev1"] != [f"dev1{i}" for i in range(50)]
