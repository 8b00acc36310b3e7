"""The train step, against float64 NumPy, one large batch and hand-made microbatches."""

import dataclasses
import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_training import (
    DROPPING,
    TINY,
    FirstTokens,
    OnDevices,
    assert_trees_equal,
    model_and_params,
)

from ait_jax.models import parameters, t5
from ait_jax.models.likelihood import cross_entropy_loss, shift_right
from ait_jax.trainer.optimizer import adafactor, adamw
from ait_jax.trainer.step import init_state, make_train_step, state_shardings, supervised_sums

BATCH = FirstTokens().batch(range(8))
# Plain gradient descent with rate 1 leaves the gradient in the parameters.
GRADIENT = optax.sgd(1.0)


@cache
def compiled(config, **options):
    weights = {name: options.pop(name) for name in ("z_loss", "label_smoothing") if name in options}
    loss_sums = supervised_sums(t5.Transformer(config), **weights)
    return jax.jit(make_train_step(loss_sums, GRADIENT, **options))


def one_step(config=TINY, batch=BATCH, step=0, seed=7, **options):
    _, params = model_and_params(config)
    state = init_state(params, GRADIENT).replace(step=jnp.int32(step))
    return compiled(config, **options)(state, batch, np.uint32(seed))


def gradient(state):
    _, params = model_and_params()
    return jax.tree.map(lambda a, b: a - np.asarray(b), params, state.params)


@pytest.fixture(scope="module")
def plain():
    return one_step()


def test_metrics_against_float64(plain):
    model, params = model_and_params()
    targets = BATCH["targets"]
    forward = jax.jit(lambda *args: model.apply({"params": params}, *args, enable_dropout=False))
    logits = np.asarray(forward(BATCH["inputs"], shift_right(targets), targets), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    real = targets > 0
    expected = -np.take_along_axis(log_p, targets[..., None], -1)[..., 0][real].mean()
    state, metrics = plain
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-6)
    assert float(metrics["tokens"]) == real.sum() < targets.size
    assert float(metrics["accuracy"]) == pytest.approx((logits.argmax(-1) == targets)[real].mean())
    for name, tree in (("grad_norm", gradient(state)), ("param_norm", state.params)):
        squares = (np.sum(np.asarray(x, np.float64) ** 2) for x in jax.tree.leaves(tree))
        assert float(metrics[name]) == pytest.approx(np.sqrt(sum(squares)), rel=1e-5)
    assert int(state.step) == 1


def test_scanned_layers_have_the_same_gradient(plain):
    scanned = dataclasses.replace(TINY, scan_layers=True)
    _, params = model_and_params()
    state = init_state(parameters.match_layout(params, True), GRADIENT)
    state, metrics = compiled(scanned)(state, BATCH, np.uint32(7))
    assert float(metrics["loss"]) == pytest.approx(float(plain[1]["loss"]), rel=1e-6)
    jax.tree.map(
        lambda ours, reference: np.testing.assert_allclose(ours, reference, atol=1e-6),
        parameters.match_layout(state.params, False),
        plain[0].params,
    )


def test_the_gradient_against_differences(plain):
    state, _ = plain
    grad = gradient(state)["decoder"]["logits_dense"]["kernel"]
    model, params = model_and_params()
    targets = BATCH["targets"]
    kernel = params["decoder"]["logits_dense"]["kernel"]

    @jax.jit
    def loss(kernel):
        changed = {**params, "decoder": {**params["decoder"], "logits_dense": {"kernel": kernel}}}
        logits = model.apply(
            {"params": changed},
            BATCH["inputs"],
            shift_right(targets),
            targets,
            enable_dropout=False,
        )
        total, tokens = cross_entropy_loss(logits, targets, targets > 0)
        return total / tokens

    row, column = np.unravel_index(np.abs(grad).argmax(), grad.shape)
    step = np.zeros_like(kernel)
    step[row, column] = 1e-2
    slope = (float(loss(kernel + step)) - float(loss(kernel - step))) / 2e-2
    assert grad[row, column] == pytest.approx(slope, rel=1e-2)


@pytest.mark.parametrize("num_microbatches", [2, 8])
def test_accumulation_equals_one_large_batch(plain, num_microbatches):
    state, metrics = one_step(num_microbatches=num_microbatches)
    # The rows have 2 or 3 target tokens: a mean of the microbatches' means would differ.
    assert_trees_equal(state.params, plain[0].params, atol=1e-6)
    for name, value in plain[1].items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5)


def test_microbatches_are_strided_rows_with_their_own_dropout():
    state, metrics = one_step(DROPPING, step=5, num_microbatches=2)
    model, params = model_and_params(DROPPING)
    rng = jax.random.fold_in(jax.random.key(7), 5)

    def loss(params, batch, index):
        logits = model.apply(
            {"params": params},
            batch["inputs"],
            shift_right(batch["targets"]),
            batch["targets"],
            enable_dropout=True,
            rngs={"dropout": jax.random.fold_in(rng, index)},
        )
        return cross_entropy_loss(logits, batch["targets"], batch["targets"] > 0)[0]

    run = jax.jit(jax.value_and_grad(loss))
    halves = [{name: rows[i::2] for name, rows in BATCH.items()} for i in (0, 1)]
    losses, grads = zip(*(run(params, half, i) for i, half in enumerate(halves)), strict=True)
    tokens = (BATCH["targets"] > 0).sum()
    assert float(metrics["loss"]) == pytest.approx(sum(map(float, losses)) / tokens, rel=1e-5)
    expected = jax.tree.map(lambda p, a, b: p - (a + b) / tokens, params, *grads)
    assert_trees_equal(state.params, expected, atol=1e-6)


def test_dropout_is_a_function_of_seed_and_step():
    def loss(**changes):
        return float(one_step(DROPPING, **changes)[1]["loss"])

    assert loss() == loss()
    assert len({loss(), loss(step=1), loss(seed=8)}) == 3


def test_packed_rows_have_the_loss_of_their_examples():
    examples = [FirstTokens()[i] for i in (1, 2, 4)]
    packed = {
        name: np.zeros((1, 24 if name.startswith("inputs") else 12), np.int32)
        for name in ("inputs", "targets", "inputs_segments", "targets_segments")
    }
    for feature, tokens in zip(("inputs", "targets"), zip(*examples, strict=True), strict=False):
        packed[feature][0, : sum(map(len, tokens))] = list(itertools.chain(*tokens))
        segments = [i for i, part in enumerate(tokens, start=1) for _ in part]
        packed[f"{feature}_segments"][0, : len(segments)] = segments
    together, metrics = one_step(batch=packed)
    alone, expected = one_step(batch=FirstTokens().collate(examples))
    assert float(metrics["tokens"]) == float(expected["tokens"])
    assert float(metrics["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-5)
    # Relative position biases see the same distances, so the gradients agree as well.
    assert_trees_equal(together.params, alone.params, atol=1e-5)


def test_bfloat16_is_close_and_the_parameters_stay_float32(plain):
    state, metrics = one_step(dataclasses.replace(TINY, dtype="bfloat16"))
    assert float(metrics["loss"]) == pytest.approx(float(plain[1]["loss"]), rel=2e-2)
    assert float(metrics["loss"]) != float(plain[1]["loss"])
    assert float(metrics["grad_norm"]) == pytest.approx(float(plain[1]["grad_norm"]), rel=5e-2)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_t5s_output_layer_stays_float32_beside_bfloat16():
    half = t5.Transformer(dataclasses.replace(TINY, dtype="bfloat16"))
    targets = BATCH["targets"]
    forward = jax.jit(lambda p, *ids: half.apply({"params": p}, *ids, enable_dropout=False))
    logits = forward(model_and_params()[1], BATCH["inputs"], shift_right(targets), targets)
    total, tokens = cross_entropy_loss(logits, targets, targets > 0)
    _, metrics = one_step(half.config)
    assert float(metrics["loss"]) == pytest.approx(float(total / tokens), rel=1e-5)


def test_a_batch_without_targets_changes_nothing():
    empty = {**BATCH, "targets": np.zeros_like(BATCH["targets"])}
    state, metrics = one_step(batch=empty)
    assert float(metrics["loss"]) == 0 == float(metrics["tokens"])
    assert_trees_equal(state.params, model_and_params()[1])


def test_z_loss_and_label_smoothing_reach_the_loss(plain):
    _, smoothed = one_step(z_loss=1e-2, label_smoothing=0.1)
    assert abs(float(smoothed["loss"]) - float(plain[1]["loss"])) > 1e-2


def leaves_by_path(tree):
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in flat}


@pytest.mark.parametrize(
    "optimizer", [adamw(lambda step: 1e-3), adafactor(lambda step: 1e-3, min_dim_size_to_factor=8)]
)
def test_moments_lie_where_their_parameters_lie(optimizer):
    model, _ = model_and_params()
    partitioner = OnDevices(num_partitions=2, num_devices=8)
    shapes, axes = parameters.abstract_params(model)
    state = jax.eval_shape(lambda p: init_state(p, optimizer), shapes)
    shardings = state_shardings(
        state, optimizer, partitioner.param_shardings(shapes, axes), partitioner.replicated
    )
    assert jax.tree.structure(shardings) == jax.tree.structure(state)
    by_path = leaves_by_path(shardings)
    shape_of = {path: leaf.shape for path, leaf in leaves_by_path(state).items()}
    suffix = "['token_embedder']['embedding']"
    moments = [path for path in by_path if path.startswith(".opt_state") and path.endswith(suffix)]
    assert len(moments) >= 2
    expected = {(64, 16): ("model", None), (64,): ("model",), (16,): (None,)}
    for path in moments:
        assert tuple(by_path[path].spec) == expected.get(shape_of[path], ())
    counters = [path for path in by_path if path.endswith(".count")]
    assert counters and all(by_path[path].is_fully_replicated for path in counters)
    factored = [path for path in moments if shape_of[path] in ((64,), (16,))]
    assert len(factored) == (2 if "v_row" in "".join(by_path) else 0)
