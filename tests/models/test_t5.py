"""The network against T5X's numbers, Hugging Face's torch T5 and its own invariants."""

import dataclasses
import importlib.util
from functools import partial

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import partitioning as nn_partitioning
from shared_data import GOLDEN_T5X, needs_shared

from ait_jax.errors import UserError
from ait_jax.models import attention, layers, parameters, t5, t5_attention

TINY = t5.T5Config(
    vocab_size=384,
    emb_dim=32,
    num_heads=4,
    num_encoder_layers=2,
    num_decoder_layers=2,
    head_dim=8,
    mlp_dim=64,
    mlp_activations=("gelu", "linear"),
    dropout_rate=0.1,
)
# Where depth does not matter, half of it compiles in half the time.
SHALLOW = dataclasses.replace(TINY, num_encoder_layers=1, num_decoder_layers=1)


@pytest.fixture(scope="module")
def golden():
    params = dict(np.load(GOLDEN_T5X / "params.npz"))
    params = {tuple(name.split("/")): value for name, value in params.items()}
    return flax.traverse_util.unflatten_dict(params), dict(np.load(GOLDEN_T5X / "io.npz"))


@pytest.fixture(scope="module")
def tiny():
    model = t5.Transformer(TINY)
    return model, parameters.init_params(model, 3)[0]


def random_tokens(seed, lengths, padded_length):
    generator = np.random.default_rng(seed)
    tokens = np.zeros((len(lengths), padded_length), np.int32)
    for row, length in enumerate(lengths):
        tokens[row, :length] = generator.integers(2, TINY.vocab_size, length)
    return tokens


def shifted(targets):
    return np.pad(targets, ((0, 0), (1, 0)))[:, :-1]


def logits_of(model, params, inputs, targets, **kwargs):
    kwargs.setdefault("enable_dropout", False)
    return np.asarray(
        jax.jit(lambda p: model.apply({"params": p}, inputs, shifted(targets), targets, **kwargs))(
            params
        )
    )


@needs_shared
def test_logits_equal_t5x(golden):
    params, io = golden
    names = ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")
    forward = jax.jit(partial(t5.Transformer(TINY).apply, enable_dropout=False))
    logits = forward({"params": params}, *(io[name] for name in names))
    # Padding positions included: T5X's masks, not only its weights, are reproduced.
    np.testing.assert_allclose(logits, io["logits"], atol=1e-4, rtol=0)


@needs_shared
def test_parameter_names_and_shapes_equal_t5x(golden):
    abstract, axes = parameters.abstract_params(t5.Transformer(TINY))
    assert jax.tree.map(lambda x: x.shape, abstract) == jax.tree.map(np.shape, golden[0])
    flat_axes = flax.traverse_util.flatten_dict(axes)
    for name, leaf in flax.traverse_util.flatten_dict(abstract).items():
        assert len(flat_axes[name]) == len(leaf.shape), name


def test_logical_axes_are_t5x_names(tiny):
    axes = parameters.abstract_params(tiny[0])[1]
    layer = axes["decoder"]["layers_1"]
    assert axes["token_embedder"]["embedding"] == ("vocab", "embed")
    assert axes["encoder"]["relpos_bias"]["rel_embedding"] == ("heads", "relpos_buckets")
    assert axes["decoder"]["logits_dense"]["kernel"] == ("embed", "vocab")
    assert layer["self_attention"]["query"]["kernel"] == ("embed", "joined_kv")
    assert layer["encoder_decoder_attention"]["out"]["kernel"] == ("joined_kv", "embed")
    assert layer["mlp"]["wi_0"]["kernel"] == ("embed", "mlp")
    assert layer["mlp"]["wo"]["kernel"] == ("mlp", "embed")
    assert layer["pre_mlp_layer_norm"]["scale"] == ("embed",)


def test_bfloat16_string_computes_near_float32(tiny):
    model, params = tiny
    inputs, targets = random_tokens(0, [9, 5], 9), random_tokens(1, [4, 6], 6)
    half = t5.Transformer(dataclasses.replace(TINY, dtype="bfloat16"))
    exact, rounded = (logits_of(m, params, inputs, targets) for m in (model, half))
    assert rounded.dtype == np.float32
    difference = np.abs(exact - rounded).max()
    assert 0 < difference < 0.05 * np.abs(exact).max()


def test_padding_changes_nothing(tiny):
    inputs, targets = random_tokens(0, [9, 5], 9), random_tokens(1, [4, 6], 6)
    exact = logits_of(*tiny, inputs, targets)
    padded = logits_of(*tiny, np.pad(inputs, ((0, 0), (0, 7))), np.pad(targets, ((0, 0), (0, 3))))
    real = targets > 0
    np.testing.assert_allclose(padded[:, :6][real], exact[real], atol=2e-5)


def test_packed_equals_unpacked(tiny):
    input_lengths, target_lengths = [7, 4], [3, 5]
    inputs, targets = random_tokens(0, input_lengths, 7), random_tokens(1, target_lengths, 5)
    separate = logits_of(*tiny, inputs, targets)

    def pack(tokens, lengths, size):
        row = np.concatenate([tokens[i, :n] for i, n in enumerate(lengths)])
        segments = np.repeat([1, 2], lengths)
        return tuple(np.pad(x, (0, size - len(row)))[None] for x in (row, segments))

    packed_inputs, input_segments = pack(inputs, input_lengths, 13)
    packed_targets, target_segments = pack(targets, target_lengths, 10)
    packed_shifted = pack(shifted(targets), target_lengths, 10)[0]
    forward = jax.jit(partial(tiny[0].apply, enable_dropout=False))
    logits = forward(
        {"params": tiny[1]},
        packed_inputs,
        packed_shifted,
        packed_targets,
        encoder_segment_ids=input_segments,
        decoder_segment_ids=target_segments,
    )[0]
    np.testing.assert_allclose(logits[:3], separate[0, :3], atol=2e-5)
    np.testing.assert_allclose(logits[3:8], separate[1, :5], atol=2e-5)


def test_later_targets_do_not_reach_earlier_logits(tiny):
    inputs, targets = random_tokens(0, [6], 6), random_tokens(1, [6], 6)
    changed = targets.copy()
    changed[0, 3] = changed[0, 3] % 300 + 5
    one, other = logits_of(*tiny, inputs, targets), logits_of(*tiny, inputs, changed)
    np.testing.assert_array_equal(one[0, :4], other[0, :4])
    assert np.abs(one[0, 4:] - other[0, 4:]).max() > 1e-3


def test_dropout_is_a_function_of_its_key(tiny):
    inputs, targets = random_tokens(0, [6], 6), random_tokens(1, [4], 4)

    def runner(enable_dropout=True, **changes):
        model = t5.Transformer(dataclasses.replace(SHALLOW, **changes))
        arguments = (inputs, shifted(targets), targets)

        @jax.jit
        def run(seed):
            rngs = {"dropout": jax.random.PRNGKey(seed)}
            return model.apply(
                {"params": tiny[1]}, *arguments, enable_dropout=enable_dropout, rngs=rngs
            )

        return run

    run = runner()
    np.testing.assert_array_equal(run(1), run(1))
    assert np.abs(run(1) - run(2)).max() > 1e-2
    without = runner(enable_dropout=False)(1)
    np.testing.assert_allclose(runner(dropout_rate=0.0)(1), without, atol=1e-6)
    assert np.abs(run(1) - without).max() > 1e-2
    # Recomputed layers must drop the same features, or the gradient belongs to another loss.
    np.testing.assert_allclose(runner(remat_policy="full")(1), run(1), atol=1e-5)


def test_remat_keeps_the_gradient(tiny):
    inputs, targets = random_tokens(0, [6], 6), random_tokens(1, [4], 4)

    def gradient(policy):
        model = t5.Transformer(dataclasses.replace(SHALLOW, remat_policy=policy))

        def loss(params):
            rngs = {"dropout": jax.random.PRNGKey(0)}
            logits = model.apply({"params": params}, inputs, shifted(targets), targets, rngs=rngs)
            return jnp.mean(jax.nn.log_softmax(logits)[..., 7])

        return jax.jit(jax.grad(loss))(tiny[1])

    plain = gradient("none")
    assert max(np.abs(x).max() for x in jax.tree.leaves(plain)) > 1e-2
    for policy in ("minimal", "full"):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), plain, gradient(policy)
        )


def test_sharding_annotations_name_known_axes(tiny):
    inputs, targets = random_tokens(0, [6], 6), random_tokens(1, [4], 4)
    names = ("batch", "length", "embed", "heads", "kv", "joined_kv", "mlp", "vocab")
    devices = np.array(jax.devices()[:1]).reshape(1, 1)
    rules = [(name, None) for name in (*names, "relpos_buckets")]
    rules[0], rules[6] = ("batch", "data"), ("mlp", "model")
    expected = logits_of(*tiny, inputs, targets)
    mesh = jax.sharding.Mesh(devices, ("data", "model"))
    with jax.set_mesh(mesh), nn_partitioning.axis_rules(rules):
        np.testing.assert_allclose(logits_of(*tiny, inputs, targets), expected, atol=1e-6)


def test_relative_position_buckets_by_hand():
    both = t5_attention.relative_position_buckets(300, bidirectional=True)
    causal = t5_attention.relative_position_buckets(300, bidirectional=False)
    query = 299  # where the key at the query's own place is
    # Bidirectional: 16 a side, 8 of them exact; keys after the query start at 16.
    assert [both[query - d] for d in (0, 1, 7, 8, 12, 127, 200)] == [0, 1, 7, 8, 9, 15, 15]
    assert [both[query + d] for d in (1, 7, 8, 299)] == [17, 23, 24, 31]
    # Causal: 16 exact, 16 logarithmic; later keys share bucket 0.
    assert [causal[query - d] for d in (0, 15, 16, 32, 64, 127, 250)] == [
        0, 15, 16, 21, 26, 31, 31,
    ]  # fmt: skip
    assert causal[query + 5] == 0


@pytest.mark.parametrize("length", [1, 2, 7])
def test_pairs_have_what_their_distance_has(length):
    values = np.random.default_rng(0).normal(size=(3, 2 * length - 1)).astype(np.float32)
    pairs = np.asarray(attention.by_pairs(jnp.asarray(values)))
    assert pairs.shape == (3, length, length)
    for query in range(length):
        for key in range(length):
            expected = values[:, key - query + length - 1]
            np.testing.assert_array_equal(pairs[:, query, key], expected)


def test_layer_norm_and_softmax_against_float64():
    x = np.random.default_rng(0).normal(size=(3, 16)) * 40
    scale = np.linspace(0.5, 2, 16)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale
    norm = layers.LayerNorm().apply({"params": {"scale": scale}}, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(norm, expected, rtol=1e-5)

    q, k, v = (np.random.default_rng(i).normal(size=(1, 4, 2, 8)) for i in range(3))
    mask = np.tril(np.ones((4, 4), bool))[None, None]
    logits = np.where(mask, np.einsum("bqhd,bkhd->bhqk", q, k), -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("bhqk,bkhd->bqhd", weights, v)
    float32 = (jnp.asarray(a, jnp.float32) for a in (q, k, v))
    attended = attention.dot_product_attention(*float32, None, jnp.asarray(mask))
    np.testing.assert_allclose(attended, expected, atol=1e-5)


@pytest.mark.parametrize(
    "sizes, encoder_tokens, expected",
    [
        ((768, 12, 12, 2048), 1024, 0.278e12),
        ((1024, 16, 24, 2816), 1024, 0.951e12),
        ((4096, 64, 24, 10240), 1024, 13.0e12),
        ((4096, 64, 24, 10240), 512, 7.12e12),
    ],
)
def test_flops_of_published_sizes(sizes, encoder_tokens, expected):
    emb_dim, num_heads, num_layers, mlp_dim = sizes
    config = t5.T5Config(
        vocab_size=32128,
        emb_dim=emb_dim,
        num_heads=num_heads,
        num_encoder_layers=num_layers,
        num_decoder_layers=num_layers,
        mlp_dim=mlp_dim,
        mlp_activations=("gelu", "linear"),
    )
    assert config.flops_per_example(encoder_tokens, 128) == pytest.approx(expected, rel=0.02)


def test_abstract_params_of_xxl_need_no_memory():
    config = t5.T5Config(
        vocab_size=32128,
        emb_dim=4096,
        num_heads=64,
        num_encoder_layers=24,
        num_decoder_layers=24,
        mlp_dim=10240,
        mlp_activations=["gelu", "linear"],
    )
    abstract, _ = parameters.abstract_params(t5.Transformer(config))
    assert parameters.num_params(abstract) == pytest.approx(11.1e9, rel=0.01)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(abstract))


def test_initial_values_fold_the_query_scale():
    config = dataclasses.replace(TINY, emb_dim=256, num_heads=16, head_dim=16)
    params, _ = parameters.init_params(t5.Transformer(config), 0)
    attention = params["encoder"]["layers_0"]["attention"]
    assert np.std(attention["key"]["kernel"]) == pytest.approx(256**-0.5, rel=0.03)
    assert np.std(attention["query"]["kernel"]) == pytest.approx(256**-0.5 / 4, rel=0.03)
    assert np.std(params["token_embedder"]["embedding"]) == pytest.approx(1.0, rel=0.03)


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("dtype", "bfloat61", "T5Config.dtype.*Did you mean 'bfloat16'"),
        ("dtype", "int32", "T5Config.dtype is 'int32'"),
        ("mlp_activations", ("gleu",), "Did you mean 'gelu'"),
        ("mlp_activations", (), "T5Config.mlp_activations"),
        ("remat_policy", "ful", "Did you mean 'full'"),
        ("num_heads", 0, "T5Config.num_heads is 0"),
        ("dropout_rate", 1.0, "T5Config.dropout_rate"),
    ],
)
def test_wrong_configuration_names_the_field(field, value, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(TINY, **{field: value})


HF_VARIANTS = {
    "t5_1_0": dict(mlp_activations=("relu",), logits_via_embedding=True),
    "t5_1_1": dict(),
}


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
    reason="needs torch and transformers (independent check of the network), absent here",
)
@pytest.mark.parametrize("variant", sorted(HF_VARIANTS))
def test_logits_equal_hugging_face(variant):
    import torch
    from hugging_face import hugging_face_model

    config = dataclasses.replace(TINY, **HF_VARIANTS[variant])
    model = t5.Transformer(config)
    params = jax.tree.map(np.asarray, parameters.init_params(model, 5)[0])
    # Scales and biases away from their initial values, or a swapped norm would not show.
    params = jax.tree.map(
        lambda x: x * np.linspace(0.7, 1.4, x.size, dtype=x.dtype).reshape(x.shape), params
    )
    theirs = hugging_face_model(params, config)
    inputs, targets = random_tokens(0, [200, 150], 200), random_tokens(1, [40, 30], 40)
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor(inputs),
            attention_mask=torch.tensor((inputs > 0).astype(np.int64)),
            decoder_input_ids=torch.tensor(shifted(targets)),
        ).logits.numpy()
    ours = logits_of(model, params, inputs, targets)
    real = targets > 0
    np.testing.assert_allclose(ours[real], expected[real], atol=1e-4, rtol=0)
