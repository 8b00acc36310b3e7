"""Checkpoints of every form and layout onto meshes, what is said of them, and what is refused."""

import dataclasses
from functools import partial

import flax
import jax
import ml_dtypes
import numpy as np
import pytest
from shared_data import GOLDEN_T5X, needs_shared
from tiny_training import OnDevices

from ait_jax.errors import UserError
from ait_jax.models import parameters, t5
from ait_jax.models.checkpoints import (
    checkpoints,
    hugging_face,
    loaded_model,
    orbax_checkpoint,
    weights,
)
from ait_jax.models.checkpoints.restore import check_params, restore_params

CONFIG = t5.T5Config(
    vocab_size=48,
    emb_dim=8,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=2,
    head_dim=4,
    mlp_dim=16,
    mlp_activations=("gelu", "linear"),
)
SCANNED = dataclasses.replace(CONFIG, scan_layers=True)
MESH = OnDevices(num_partitions=2, num_devices=8)


def model_of(**changes):
    return t5.Transformer(dataclasses.replace(CONFIG, **changes))


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(np.asarray, parameters.init_params(model_of(), 0)[0])


def scalable(params, biases="shared"):
    """The same parameters as T5X's scalable_t5 would hold them, written out by hand."""
    flat, moved = parameters.flatten(params), {}
    for stack, count in (("encoder", 1), ("decoder", 2)):
        first = f"{stack}.layers_0."
        for name in [name for name in flat if name.startswith(first)]:
            rest = name.removeprefix(first)
            layers = [flat.pop(f"{stack}.layers_{i}.{rest}") for i in range(count)]
            if rest.endswith("out.kernel"):
                layers = [kernel.reshape(2, 4, 8) for kernel in layers]
            elif "attention" in rest and rest.endswith("kernel"):
                layers = [kernel.reshape(8, 2, 4) for kernel in layers]
            moved[f"{stack}.{stack}.{rest}"] = np.stack(layers, axis=1)
        table = flat.pop(f"{stack}.relpos_bias.rel_embedding")
        tables = [table + (0.5 * i if biases == "own" else 0) for i in range(count)]
        moved[f"{stack}.{stack}.relpos_bias.rel_embedding"] = np.stack(tables, axis=1)
    return parameters.unflatten(flat | moved)


def write(form, folder, params):
    if form == "orbax":
        orbax_checkpoint.write(folder, params, 7)
    elif form == "hugging_face":
        hugging_face.write(folder, params, CONFIG)
    else:
        weights.save_weights(folder / "model.safetensors", params)


def assert_on_mesh(restored, expected, model):
    """Values, dtypes and shardings are as `model` wants them."""
    shapes, axes = parameters.abstract_params(model)
    shardings = parameters.flatten(MESH.param_shardings(shapes, axes))
    expected = parameters.flatten(parameters.match_layout(expected, model.config.scan_layers))
    found = parameters.flatten(restored.params)
    assert list(found) == list(expected)
    for name, array in found.items():
        assert array.dtype == np.float32
        assert array.sharding.is_equivalent_to(shardings[name], array.ndim), name
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize("form", ["orbax", "hugging_face", "safetensors"])
@pytest.mark.parametrize("config", [CONFIG, SCANNED], ids=["separate", "scanned"])
def test_every_form_onto_a_mesh(tmp_path, params, form, config):
    write(form, tmp_path, params)
    model = t5.Transformer(config)
    restored = restore_params(tmp_path, model, MESH)
    assert_on_mesh(restored, params, model)
    assert restored.checkpoint.form == form
    assert restored.describe().endswith("; missing: none")


@pytest.mark.parametrize("form", ["orbax", "safetensors"])
@pytest.mark.parametrize("config", [CONFIG, SCANNED], ids=["separate", "scanned"])
@pytest.mark.parametrize("layout", [parameters.STACKED, parameters.SCALABLE])
def test_stacked_layers(tmp_path, params, form, config, layout):
    stored = parameters.match_layout(params, True)
    stored = scalable(params) if layout == parameters.SCALABLE else stored
    write(form, tmp_path, jax.tree.map(np.asarray, stored))
    model = t5.Transformer(config)
    restored = restore_params(tmp_path, model, MESH)
    assert_on_mesh(restored, params, model)
    assert f"layers {layout}) from" in restored.describe()
    host = parameters.match_layout(checkpoints.open_checkpoint(tmp_path).load(), False)
    for name, array in parameters.flatten(host).items():
        np.testing.assert_array_equal(array, parameters.flatten(params)[name])


@needs_shared
@pytest.mark.parametrize("form", ["legacy_checkpoint", "orbax_checkpoint"])
def test_t5xs_own_checkpoints_onto_a_mesh(form):
    golden = flax.traverse_util.unflatten_dict(dict(np.load(GOLDEN_T5X / "params.npz")), sep="/")
    model = t5.Transformer(loaded_model.t5_config(golden))
    restored = restore_params(GOLDEN_T5X / form, model, MESH)
    assert_on_mesh(restored, golden, model)
    said = restored.describe()
    assert said.startswith(f"restored {parameters.num_params(golden):,} parameters in ")
    kind = "a T5X legacy checkpoint" if form.startswith("legacy") else "an Orbax checkpoint"
    assert f"checkpoint_150, {kind} of step 150; reset: its optimizer state (" in said


def test_bfloat16_is_read_as_float32(tmp_path, params):
    rounded = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), params)
    orbax_checkpoint.write(tmp_path, rounded, 7)
    restored = restore_params(tmp_path, model_of(), MESH)
    assert_on_mesh(restored, jax.tree.map(lambda x: x.astype(np.float32), rounded), model_of())
    assert "(bfloat16) from" in restored.describe()


def test_position_biases_of_every_layer_are_refused(tmp_path, params):
    weights.save_weights(tmp_path / "model.safetensors", scalable(params, biases="own"))
    for read in (lambda: restore_params(tmp_path, model_of(), MESH),
                 lambda: checkpoints.open_checkpoint(tmp_path).load()):  # fmt: skip
        with pytest.raises(UserError, match="its decoder's layers have position biases of their"):
            read()


@pytest.mark.t5x
def test_t5xs_scalable_t5_gives_the_logits_of_ours(tmp_path):
    from t5x.examples.scalable_t5 import network

    fields = {f.name for f in dataclasses.fields(t5.T5Config)}
    theirs = {f.name for f in dataclasses.fields(network.T5Config)}
    values = {name: getattr(CONFIG, name) for name in fields & theirs} | {"scan_layers": True}
    scalable_t5 = network.Transformer(network.T5Config(**values))
    rng = np.random.default_rng(0)
    inputs, targets = (rng.integers(1, 48, (2, length)).astype(np.int32) for length in (9, 5))
    drawn = scalable_t5.init(jax.random.PRNGKey(0), inputs, targets, targets, enable_dropout=False)
    flat = parameters.flatten(flax.core.unfreeze(drawn["params"]))
    for name in flat:
        if name.endswith("relpos_bias.rel_embedding"):
            flat[name] = np.repeat(flat[name][:, :1], flat[name].shape[1], axis=1)
    stored = parameters.unflatten(jax.tree.map(np.asarray, flat))
    orbax_checkpoint.write(tmp_path, stored, 3)
    model = model_of(scan_layers=True)
    restored = restore_params(tmp_path, model, MESH).params
    ours, expected = (
        jax.jit(partial(module.apply, enable_dropout=False))(
            {"params": p}, inputs, targets, targets
        )
        for module, p in ((model, jax.tree.map(np.asarray, restored)), (scalable_t5, stored))
    )
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_what_is_missing_is_drawn_where_asked_for(tmp_path, params):
    flat = parameters.flatten(params)
    kernel = flat.pop("decoder.logits_dense.kernel")
    weights.save_weights(tmp_path / "model.safetensors", flat | {"decoder.extra": kernel})
    with pytest.raises(UserError, match="missing: decoder.logits_dense.kernel; unexpected: "):
        restore_params(tmp_path, model_of(), MESH)
    for config in (CONFIG, SCANNED):
        model = t5.Transformer(config)
        restored = restore_params(tmp_path, model, MESH, fallback_to_scratch=True, rng_seed=5)
        drawn = parameters.init_params(model, 5)[0]["decoder"]["logits_dense"]["kernel"]
        assert not np.array_equal(drawn, kernel)
        expected = flat | {"decoder.logits_dense.kernel": np.asarray(drawn)}
        assert_on_mesh(restored, parameters.unflatten(expected), model)
        assert restored.describe().endswith(
            "; missing, drawn at random: decoder.logits_dense.kernel; not in the model, left out: "
            "decoder.extra"
        )


def test_layers_are_drawn_too(tmp_path, params):
    weights.save_weights(tmp_path / "model.safetensors", params)
    model = model_of(num_decoder_layers=3, scan_layers=True)
    restored = restore_params(tmp_path, model, MESH, fallback_to_scratch=True)
    found = parameters.flatten(parameters.match_layout(restored.params, False))
    for name, array in parameters.flatten(params).items():
        np.testing.assert_array_equal(found[name], array)
    assert len(restored.drawn) == len([n for n in found if n.startswith("decoder.layers_2.")])


@pytest.mark.parametrize("fallback", [False, True])
def test_another_networks_parameters_are_not_a_start(tmp_path, fallback):
    other = {"token_embedder.embedding": np.zeros((48, 8), np.float32)}
    weights.save_weights(tmp_path / "a.safetensors", other)
    wider = model_of(emb_dim=16)
    with pytest.raises(UserError, match=r"embedding is \(48, 8\) there and \(48, 16\) here"):
        restore_params(tmp_path / "a.safetensors", wider, MESH, fallback_to_scratch=fallback)


# --- check_params ---


def check(params, source, **changes):
    shapes, axes = map(parameters.flatten, parameters.abstract_params(model_of(**changes)))
    return check_params(parameters.flatten(params), shapes, axes, source, t5.T5Config)


def test_fitting_parameters_pass(params):
    assert check(params, "here") == ([], [])


@pytest.mark.parametrize(
    "changes, parts",
    [
        (
            dict(vocab_size=64),
            ["token_embedder.embedding is (48, 8) there and (64, 8) here", "T5Config.vocab_size."],
        ),
        (dict(emb_dim=12), ["decoder.decoder_norm.scale is (8,)", "more", "T5Config.emb_dim."]),
        (dict(mlp_dim=32), ["wi_0.kernel is (8, 16) there", "Likely wrong: T5Config.mlp_dim."]),
        (dict(head_dim=8), ["T5Config.num_heads or head_dim."]),
        (dict(num_decoder_layers=3), ["missing: decoder.layers_2", "T5Config.num_decoder_layers."]),
        (dict(num_decoder_layers=1), ["unexpected: decoder.layers_1", "num_decoder_layers."]),
        (
            dict(mlp_activations=("relu",)),
            ["missing: decoder.layers_0.mlp.wi.kernel", "Likely wrong: T5Config.mlp_activations."],
        ),
        (
            dict(logits_via_embedding=True),
            ["unexpected: decoder.logits_dense.kernel", "T5Config.logits_via_embedding."],
        ),
    ],
)
def test_mismatch_names_the_likely_field(params, changes, parts):
    with pytest.raises(UserError) as caught:
        check(params, "runs/a", **changes)
    message = str(caught.value)
    assert message.startswith("runs/a does not fit the model: ")
    for part in parts:
        assert part in message


@pytest.mark.parametrize("layout", [parameters.STACKED, parameters.SCALABLE])
@pytest.mark.parametrize(
    "changes, field",
    [
        (dict(num_decoder_layers=3), "num_decoder_layers"),
        (dict(mlp_dim=32), "mlp_dim"),
        (dict(head_dim=8), "(num_heads or )?head_dim"),
        (dict(mlp_activations=("relu",)), "mlp_activations"),
    ],
)
def test_mismatch_of_stacked_layers_names_the_likely_field(params, layout, changes, field):
    stored = (
        parameters.match_layout(params, True) if layout == parameters.STACKED else scalable(params)
    )
    shapes, axes = parameters.abstract_params_in(model_of(**changes), layout)
    with pytest.raises(UserError, match=rf"Likely wrong: T5Config\.{field}\.$"):
        check_params(parameters.flatten(stored), shapes, axes, "runs/a", t5.T5Config)
