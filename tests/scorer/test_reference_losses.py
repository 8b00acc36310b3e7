"""Losses of reference outputs against the model's logits, one example at a time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_experiment import tiny_experiment

from ait_jax.models.parameters import init_params
from ait_jax.pool import TaskPool
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer.asker import Asker
from ait_jax.scorer.engine import Engine
from ait_jax.scorer.reference_losses import reference_losses


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return tiny_experiment(tmp_path_factory.mktemp("unused"))


@pytest.fixture(scope="module", params=[1, 2])
def asker(parts, request):
    engine = Engine(
        parts.model, Partitioner(num_partitions=request.param), parts.buckets, 1024, 1.5
    )
    params = engine.place(init_params(parts.model, 3)[0])
    return Asker(engine, params, parts.pool, parts.vocabulary, parts.encoding, parts.seed)


def by_hand(model, asker, params, prompt: str, answer: str) -> float:
    """Mean cross-entropy of an answer's tokens and its end, float64."""
    source = asker.vocabulary.encode_source(prompt, asker.encoding.max_source_length)
    target = np.array(asker.target_of(answer))
    shifted = np.array([0, *target[:-1]])
    call = jax.jit(lambda *tokens: model.apply(
        {"params": params}, *tokens, enable_dropout=False
    ))  # fmt: skip
    logits = call(*(jnp.asarray(tokens)[None] for tokens in (source, shifted, target)))
    logits = np.asarray(logits[0], np.float64)
    total = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
    return float((total - logits[np.arange(len(target)), target]).mean())


def test_losses_are_those_of_single_examples(parts, asker):
    names = list(parts.pool)[:3]
    params, before = init_params(parts.model, 3)[0], init_params(parts.model, 4)[0]
    found = reference_losses(asker, names, 2, alone=True, before=asker.engine.place(before))
    assert list(found) == names
    for name in names:
        task, losses = parts.pool[name], found[name]
        for row, instance in enumerate(task.instances[:2]):
            prompt = asker.encoding.encode(
                task.instruction,
                instance.input,
                asker.vocabulary.count_tokens,
                asker.vocabulary.truncate,
                task_name=name,
            ).text
            for values, model, text in (
                (losses.prompted, params, prompt),
                (losses.alone, params, ""),
                (losses.before, before, prompt),
            ):
                assert len(values) == 2 and values.dtype == np.float64
                expected = by_hand(parts.model, asker, model, text, instance.outputs[0])
                assert values[row] == pytest.approx(expected, abs=1e-5)


def test_instances_without_references_are_left_out(parts, asker):
    first, second, third = (parts.pool[name] for name in list(parts.pool)[:3])
    bare = [dataclasses.replace(instance, outputs=()) for instance in second.instances]
    mixed = (dataclasses.replace(third.instances[0], outputs=()), *third.instances[1:3])
    pool = TaskPool(
        [first, dataclasses.replace(second, instances=tuple(bare)),
         dataclasses.replace(third, instances=mixed)], name="holes",
    )  # fmt: skip
    found = reference_losses(dataclasses.replace(asker, pool=pool), list(pool), 2)
    assert [len(losses.prompted) for losses in found.values()] == [2, 0, 1]
    assert all(losses.alone is None and losses.before is None for losses in found.values())
    whole = reference_losses(asker, [third.name], 2)[third.name].prompted
    np.testing.assert_allclose(found[third.name].prompted, whole[1:], atol=1e-6)
