"""Programs are dropped before the process runs out of memory maps."""

import numpy as np
import pytest
from tiny_llama import config_of, random_params
from tiny_training import OnDevices

from ait_jax.models.llama import LlamaTransformer
from ait_jax.scorer import continuous, program_cache
from ait_jax.scorer.batching import LengthBuckets
from ait_jax.scorer.engine import Engine
from ait_jax.scorer.program_cache import ProgramCache


@pytest.mark.parametrize(("maps", "scarce"), [(32, False), (33, True)])
def test_half_of_the_maps_are_many(tmp_path, monkeypatch, maps, scarce):
    (tmp_path / "maps").write_text("7f00-7f01 r-xp 0 0 0\n" * maps)
    (tmp_path / "most").write_text("64\n")
    monkeypatch.setattr(program_cache, "_MAPS", tmp_path / "maps")
    monkeypatch.setattr(program_cache, "_MOST_MAPS", tmp_path / "most")
    assert program_cache.maps_are_scarce() == scarce


@pytest.mark.parametrize("missing", ["_MAPS", "_MOST_MAPS"])
def test_systems_that_do_not_say(tmp_path, monkeypatch, missing):
    monkeypatch.setattr(program_cache, missing, tmp_path / "missing")
    assert not program_cache.maps_are_scarce()


def test_programs_not_used_for_longest_are_dropped(monkeypatch):
    compiled = []
    programs = ProgramCache(lambda shape: compiled.append(shape) or f"program {shape}")
    for shape in range(4):
        programs.start(shape).result()
    programs.start(0).result()
    monkeypatch.setattr(program_cache, "maps_are_scarce", lambda: True)
    programs.start(4).result()
    assert compiled == [0, 1, 2, 3, 4]
    assert programs.start(3).result() == "program 3" and programs.start(0).result()
    assert compiled == [0, 1, 2, 3, 4]
    monkeypatch.setattr(program_cache, "maps_are_scarce", lambda: False)
    assert programs.start(1).result() == "program 1"
    assert compiled == [0, 1, 2, 3, 4, 1]


def test_results_are_the_same_with_few_maps(monkeypatch):
    """Every pool of slots and every batch compiles anew."""
    random = np.random.default_rng(0)
    model = LlamaTransformer(config_of(num_layers=1))
    prompts, targets = [], []
    for length in (8, 40):
        instruction = random.integers(2, 300, length).tolist()
        for own in (3, 5):
            prompts.append([*instruction, *random.integers(2, 300, own).tolist(), 1])
            targets.append([*random.integers(2, 300, own).tolist(), 1])
    monkeypatch.setattr(program_cache, "_PROGRAMS_BETWEEN_COUNTS", 1)
    found, kept = [], []
    for scarce in (False, True):
        for module in (program_cache, continuous):
            monkeypatch.setattr(module, "maps_are_scarce", lambda scarce=scarce: scarce)
        engine = Engine(model, OnDevices(), LengthBuckets((64,), (8,)), 64)
        params = engine.place(random_params(model.config, 3))
        for _ in range(2):
            decoded = engine.decode(params, prompts)
            scored = engine.log_likelihoods(params, prompts, targets)
            embedded = engine.embed(params, prompts).sum(axis=1)
        found.append((decoded.tokens, decoded.log_likelihoods, scored, embedded))
        kept.append(len(engine._programs._futures))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1:], found[1][1:])
    assert kept[1] < kept[0]
