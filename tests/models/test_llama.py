"""LLaMA against a float64 NumPy forward pass, against transformers, and against itself."""

import dataclasses
import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_decoder import by_hand
from tiny_training import FirstTokens

from ait_jax.errors import UserError
from ait_jax.models import rotary
from ait_jax.models.checkpoints.restore import restore_params
from ait_jax.models.decoding import greedy_decode
from ait_jax.models.interface import changed
from ait_jax.models.likelihood import shift_right
from ait_jax.models.llama import LlamaConfig, LlamaTransformer
from ait_jax.models.parameters import abstract_params, flatten, init_params, match_layout
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer.batching import LengthBuckets, pad_rows
from ait_jax.scorer.engine import Engine
from ait_jax.trainer.embedded import EmbeddedTrainer
from ait_jax.trainer.interface import TrainingJob
from ait_jax.trainer.optimizer import adamw
from ait_jax.trainer.step import init_state, make_train_step, supervised_sums

SIZES = dict(
    vocab_size=96, emb_dim=24, num_heads=6, num_kv_heads=2, head_dim=8, num_layers=3, mlp_dim=40,
    rope_theta=1000.0, max_position=64,
)  # fmt: skip
GEMMA3 = dict(
    norms="both", qk_norm="head", mlp_activations=("gelu", "linear"), scale_embeddings=True,
    layer_pattern="LLG", sliding_window=4, local_rope_theta=50.0, logits_via_embedding=True,
)  # fmt: skip
VARIANTS = {
    "grouped": {},
    "tied": dict(logits_via_embedding=True, num_kv_heads=6, norm_epsilon=1e-3),
    "biased": dict(attention_bias=True, attention_output_bias=True, num_kv_heads=1),
    "scaled": dict(
        rope_scaling=rotary.Llama3Scaling(factor=4.0, original_max_position=16), num_kv_heads=3
    ),
    "linear": dict(rope_scaling=rotary.LinearScaling(factor=3.0)),
    "dynamic": dict(rope_scaling=rotary.DynamicScaling(factor=4.0, original_max_position=64)),
    "yarn": dict(rope_scaling=rotary.YarnScaling(factor=4.0, original_max_position=40)),
    "yarn_steps": dict(
        rope_scaling=rotary.YarnScaling(3.0, 20, attention_factor=0.8, beta_fast=4.0, beta_slow=0.5)
    ),
    "yarn_exact": dict(
        rope_scaling=rotary.YarnScaling(8.0, 16, beta_fast=2.5, beta_slow=0.3, truncate=False)
    ),
    "qwen3": dict(qk_norm="head"),
    "smollm3": dict(layer_pattern="GN"),
    "olmo2": dict(norms="post", qk_norm="all"),
    "olmo3": dict(
        norms="post", qk_norm="all", layer_pattern="LG", sliding_window=5, local_rope_theta=1000.0,
        rope_scaling=rotary.YarnScaling(factor=4.0, original_max_position=40),
    ),
    "gemma3": GEMMA3,
    "capped": {**GEMMA3, "attention_softcap": 2.0, "logits_softcap": 3.0, "query_scale": 0.5},
}  # fmt: skip
LENGTHS = ((9, 4), (3, 6), (14, 2), (1, 5))

needs_torch = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
    reason="needs torch and transformers (Hugging Face's own LLaMA), absent here",
)


def make(variant="grouped", **changes):
    return LlamaTransformer(LlamaConfig(**{**SIZES, **VARIANTS[variant], **changes}))


def random_params(model, seed=0):
    """Every value away from its initial one, or swapped norms would not show."""
    random = np.random.default_rng(seed)

    def draw(leaf):
        if len(leaf.shape) == 1:
            return random.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return random.normal(0, 0.25, leaf.shape).astype(np.float32)

    return jax.tree.map(draw, abstract_params(changed(model, scan_layers=False))[0])


def rows(seed=1):
    random = np.random.default_rng(seed)
    draw = lambda length: random.integers(2, SIZES["vocab_size"], length).tolist()  # noqa: E731
    return [(draw(prompt), [*draw(target - 1), 1]) for prompt, target in LENGTHS]


def padded(examples, inputs=16, targets=8):
    return tuple(
        jnp.asarray(pad_rows([row[side] for row in examples], length))
        for side, length in ((0, inputs), (1, targets))
    )


def logits_of(model, params, examples, **lengths):
    """Logits of every row's targets, without padding."""
    inputs, targets = padded(examples, **lengths)
    apply = jax.jit(lambda p, *x: model.apply({"params": p}, *x, enable_dropout=False))
    logits = apply(params, inputs, shift_right(targets), targets)
    return [
        np.asarray(row)[: len(target)] for row, (_, target) in zip(logits, examples, strict=True)
    ]


def expected_logits(config, params, examples):
    return [
        by_hand(config, params, prompt + target[:-1])[len(prompt) - 1 :]
        for prompt, target in examples
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_of_padded_rows_are_numpys_of_single_rows(variant):
    model = make(variant)
    params = random_params(model)
    expected = expected_logits(model.config, params, rows())
    for forms in ({}, dict(scan_layers=True, attention_kernel="blocked", remat_policy="full")):
        form = changed(model, **forms)
        stored = match_layout(params, form.config.scan_layers)
        for ours, theirs in zip(logits_of(form, stored, rows()), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
    "variant, scan",
    [("grouped", False), ("grouped", True), ("capped", False), ("olmo3", True), ("smollm3", True)],
)
def test_a_prompt_run_before_gives_the_same(variant, scan):
    """encode + decode, in two parts shared by rows, and with other padding."""
    model = make(variant, scan_layers=scan)
    params = random_params(model)
    stored = match_layout(params, scan)
    expected = logits_of(model, stored, rows())
    inputs, targets = padded(rows(), inputs=20, targets=6)

    def run(method, *tokens):
        function = partial(model.apply, enable_dropout=False, method=method)
        return jax.jit(function)({"params": stored}, *tokens)

    encoded = run("encode", inputs)
    logits = run("decode", encoded, inputs, shift_right(targets), targets)
    for row, theirs in zip(logits, expected, strict=True):
        np.testing.assert_allclose(row[: len(theirs)], theirs, rtol=1e-4, atol=1e-4)

    instructions, instances = (
        [[5, 6, 7], [8, 9, 10, 11, 12]],
        [[20, 21], [22], [23, 24, 25], [26, 27]],
    )
    together = [
        (instructions[i // 2] + instance, target)
        for i, (instance, (_, target)) in enumerate(zip(instances, rows(), strict=True))
    ]
    _, prefix = run("extend", jnp.asarray(pad_rows(instructions, 7)))
    instance_tokens = jnp.asarray(pad_rows(instances, 4))
    _, own = run("extend", instance_tokens, (prefix,))
    own = {**own, "length": own["length"] - 1}
    logits = run("decode", (prefix, own), instance_tokens, shift_right(targets), targets)
    for row, theirs in zip(logits, logits_of(model, stored, together), strict=True):
        np.testing.assert_allclose(row[: len(theirs)], theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "variant, scan, unroll",
    [("grouped", True, False), ("grouped", True, True), ("gemma3", True, False)],
)
def test_greedy_answers_are_the_argmax_of_teacher_forcing(variant, scan, unroll):
    model = make(variant, scan_layers=scan)
    params = random_params(model, seed=4)
    prompts = [prompt for prompt, _ in rows()] * 3 + [[]]
    decoded = jax.jit(lambda p, x: greedy_decode(model, p, x, 7, unroll_layers=unroll))(
        match_layout(params, scan), jnp.asarray(pad_rows(prompts, 16))
    )
    plain = changed(model, scan_layers=False)
    examples = [
        (prompt, np.asarray(tokens)[:n].tolist())
        for prompt, tokens, n in zip(prompts, decoded.tokens, decoded.lengths.tolist(), strict=True)
        if prompt
    ]
    for logits, (_, answer), mean in zip(
        logits_of(plain, params, examples), examples, decoded.log_likelihood[:-1], strict=True
    ):
        assert logits.argmax(-1).tolist() == answer
        log_p = np.asarray(jax.nn.log_softmax(logits))[np.arange(len(answer)), answer]
        np.testing.assert_allclose(mean, log_p.mean(), atol=1e-5)
    assert decoded.lengths[-1] == 0 and len({tuple(a) for _, a in examples}) > 1


@pytest.mark.parametrize(
    "variant, partitions",
    [("grouped", 2), ("grouped", 4), ("gemma3", 1), ("capped", 2), ("olmo3", 1), ("smollm3", 1)],
)
def test_engine_on_meshes(variant, partitions):
    """Log-likelihoods and answers on 8 devices against NumPy; key heads that do not divide, too."""
    model = make(variant, num_heads=8, num_kv_heads=2)
    params = random_params(model)
    engine = Engine(model, Partitioner(partitions), LengthBuckets((8, 16), (4, 8)), 128)
    placed = engine.place(params)
    prompts, targets = zip(*rows(), strict=True)
    expected = []
    for logits, target in zip(expected_logits(model.config, params, rows()), targets, strict=True):
        log_z = np.log(np.exp(logits).sum(-1))
        expected.append((logits[np.arange(len(target)), target] - log_z).mean())
    values = engine.log_likelihoods(placed, prompts, targets)
    np.testing.assert_allclose(values, expected, atol=1e-5)
    answers = engine.decode(placed, prompts)
    again = engine.log_likelihoods(placed, prompts, [[*a[:7], 1] for a in answers.tokens])
    np.testing.assert_allclose(answers.log_likelihoods, again, atol=1e-5)
    embedded = engine.embed(placed, prompts)
    for prompt, vector in zip(prompts, embedded, strict=True):
        hidden = model.apply({"params": params}, np.array([prompt]), False, method="represent")[0]
        by_position = np.average(hidden, axis=0, weights=np.arange(len(prompt)) + 1)
        np.testing.assert_allclose(vector, by_position, atol=1e-5)
    assert engine.work.flops > 0


def test_bfloat16_is_close():
    model = make()
    params = random_params(model)
    exact = logits_of(model, params, rows())
    for between in (None, "float32"):
        half = changed(model, dtype="bfloat16", intermediate_dtype=between)
        for ours, theirs in zip(logits_of(half, params, rows()), exact, strict=True):
            assert ours.dtype == np.float32
            assert np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()


def test_training_on_a_mesh():
    """The loss falls, and 8 devices make the updates that one makes."""
    inputs, targets = padded(rows() * 2)
    batch = {"inputs": inputs, "targets": targets}
    model = make(scan_layers=True, remat_policy="minimal")
    params = match_layout(random_params(model), True)
    losses = {}
    for partitioner in (None, Partitioner(2)):
        optimizer = adamw(lambda _: 3e-3)
        step = make_train_step(supervised_sums(model), optimizer, num_microbatches=2)
        state = init_state(params, optimizer)
        jitted, found = jax.jit(step), []
        for _ in range(4):
            if partitioner is None:
                state, metrics = jitted(state, batch, np.uint32(0))
            else:
                with partitioner.activate():
                    state, metrics = jitted(state, partitioner.shard_batch(batch), np.uint32(0))
            found.append(float(metrics["loss"]))
        losses[partitioner is None] = found
    assert losses[True][-1] < 0.8 * losses[True][0]
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-5)


def test_the_trainers_checkpoints_come_back(tmp_path):
    """In another layout; and into a model of another size with the field's name."""
    model = make(scan_layers=True, num_layers=2)
    trainer = EmbeddedTrainer(batch_size=8, epochs=None, steps=2)
    job = TrainingJob(
        FirstTokens(), init_params(model, 0)[0], tmp_path, model, Partitioner(), seed=0
    )
    trained = trainer.train(job)
    apart = changed(model, scan_layers=False)
    restored = restore_params(trained.directory, apart, Partitioner(2)).params
    wanted = flatten(match_layout(trained.params, False))
    assert flatten(restored).keys() == wanted.keys()
    for name, array in flatten(restored).items():
        np.testing.assert_array_equal(array, wanted[name])
    with pytest.raises(UserError, match=r"Likely wrong: LlamaConfig\.num_layers\.$"):
        restore_params(trained.directory, changed(model, num_layers=3), Partitioner())


def test_flops_are_those_of_the_matrix_products():
    """Against XLA's own count of a float32 forward pass, whose attention is not halved."""
    config = LlamaConfig(
        vocab_size=512, emb_dim=128, num_heads=4, num_kv_heads=2, head_dim=32, num_layers=2,
        mlp_dim=384,
    )  # fmt: skip
    model = LlamaTransformer(config)
    shapes = abstract_params(model)[0]
    prompts, targets = (jax.ShapeDtypeStruct((1, n), jnp.int32) for n in (57, 8))
    cost = (
        jax.jit(lambda p, x, y: model.apply({"params": p}, x, y, y, enable_dropout=False))
        .lower(shapes, prompts, targets).compile().cost_analysis()
    )  # fmt: skip
    unhalved = 2 * config.num_layers * 64**2 * config.num_heads * config.head_dim
    assert cost["flops"] == pytest.approx(config.flops_per_example(57, 8) + unhalved, rel=0.05)


def test_what_does_not_fit_is_refused():
    for values, message in (
        (dict(num_kv_heads=4), "num_kv_heads = 4 does not divide num_heads = 6"),
        (dict(head_dim=7), "head_dim = 7 is odd"),
        (dict(num_layers=0), "LlamaConfig.num_layers is 0"),
        (dict(dtype="bfloat61"), "LlamaConfig.dtype.*Did you mean 'bfloat16'"),
        (dict(attention_kernel="flash"), "LlamaConfig.attention_kernel"),
    ):
        with pytest.raises(UserError, match=message):
            LlamaConfig(**{**SIZES, **values})
    with pytest.raises(UserError, match="low_freq_factor below high_freq_factor"):
        rotary.Llama3Scaling(low_freq_factor=4.0)
    with pytest.raises(UserError, match=r"rotary.YarnScaling.factor = -1"):
        rotary.YarnScaling(factor=-1)
    with pytest.raises(UserError, match="max_position = 65 is beyond .*original_max_position = 64"):
        make("dynamic", max_position=65)
    with pytest.raises(UserError, match="rope_theta = 1.0; it must be above 1"):
        make(rope_theta=1.0)
    model, ones = make(), jnp.ones((1, 2), jnp.int32)
    with pytest.raises(UserError, match="Packed examples"):
        ids = {"encoder_segment_ids": ones, "decoder_segment_ids": ones}
        model.init(jax.random.key(0), ones, ones, ones, **ids, enable_dropout=False, decode=True)


# --- against transformers ---


def torch_model(config, params):
    """Returns transformers' LLaMA with our random weights."""
    import torch
    import transformers

    scaling = config.rope_scaling
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if scaling is not None:
        rope |= dataclasses.asdict(scaling)
        rope["rope_type"] = type(scaling).__name__.removesuffix("Scaling").lower()
        if "original_max_position" in rope:
            rope["original_max_position_embeddings"] = rope.pop("original_max_position")
        rope = {key: value for key, value in rope.items() if value is not None}
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size, hidden_size=config.emb_dim,
            intermediate_size=config.mlp_dim, num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads, num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim, rms_norm_eps=config.norm_epsilon, rope_parameters=rope,
            tie_word_embeddings=config.logits_via_embedding, attention_bias=config.attention_bias,
            max_position_embeddings=config.max_position, attn_implementation="eager",
        )
    ).eval()  # fmt: skip
    state = {hugging_face_name(name): array.T for name, array in flatten(params).items()}
    state["model.embed_tokens.weight"] = state["model.embed_tokens.weight"].T
    state = {name: torch.tensor(np.ascontiguousarray(array)) for name, array in state.items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    theirs.tie_weights()
    return theirs


def hugging_face_name(name):
    for ours, theirs in (
        ("decoder.token_embedder.embedding", "model.embed_tokens.weight"),
        ("decoder.decoder_norm.scale", "model.norm.weight"),
        ("decoder.logits_dense.kernel", "lm_head.weight"),
        ("decoder.layers_", "model.layers."),
        ("pre_self_attention_layer_norm", "input_layernorm"),
        ("pre_mlp_layer_norm", "post_attention_layernorm"),
        ("self_attention.query", "self_attn.q_proj"),
        ("self_attention.key", "self_attn.k_proj"), ("self_attention.value", "self_attn.v_proj"),
        ("self_attention.out", "self_attn.o_proj"), ("wi_0", "gate_proj"), ("wi_1", "up_proj"),
        ("mlp.wo", "mlp.down_proj"), (".kernel", ".weight"), (".scale", ".weight"),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return name


@needs_torch
@pytest.mark.parametrize("variant", VARIANTS)
def test_transformers(variant):
    """Logits, the training loss and its gradient, and greedy answers."""
    import torch

    model = make(variant)
    params = random_params(model)
    theirs = torch_model(model.config, params)
    losses = []
    for ours, (prompt, target) in zip(logits_of(model, params, rows()), rows(), strict=True):
        logits = theirs(torch.tensor([prompt + target[:-1]])).logits[0, len(prompt) - 1 :]
        np.testing.assert_allclose(ours, logits.detach().numpy(), rtol=2e-4, atol=2e-4)
        losses.append(
            torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="sum")
        )
    inputs, targets = padded(rows())
    (loss, _), grads = jax.jit(
        jax.value_and_grad(lambda p: supervised_sums(model)(
            p, {"inputs": inputs, "targets": targets}, jax.random.key(0)), has_aux=True)
    )(params)  # fmt: skip
    total = sum(losses)
    total.backward()
    assert float(loss) == pytest.approx(float(total.detach()), rel=1e-5)
    gradients = {name: value.grad.numpy() for name, value in theirs.named_parameters()}
    for name, ours in flatten(grads).items():
        other = gradients[hugging_face_name(name)]
        other = other if name.endswith("embedding") else other.T
        np.testing.assert_allclose(
            ours, other, rtol=2e-3, atol=2e-4 * np.abs(other).max(), err_msg=name
        )
    decoded = greedy_decode(model, params, inputs, 6)
    for (prompt, _), tokens, length in zip(rows(), decoded.tokens, decoded.lengths, strict=True):
        out = theirs.generate(
            torch.tensor([prompt]),
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=1,
            pad_token_id=0,
        )
        assert out[0, len(prompt) :].tolist()[: int(length)] == tokens[: int(length)].tolist()
