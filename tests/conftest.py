"""What every test needs before JAX and TensorFlow are imported, and fixtures that files share."""

import gc
import importlib.util
import os
import signal
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Modules of arrays. Not those whose classes gin builds: it would see the wrapped constructors.
CHECKED = (
    "models.group_windows", "models.grouped_attention", "models.likelihood",
    "scorer.group_rows", "scorer.likelihoods", "scorer.partial_scores", "scorer.shared_prefixes",
    "selection.likelihood_table", "selection.task_map", "selection.uncertainty",
)  # fmt: skip
# Eight virtual devices for meshes. Compiling is most of what the suite costs: without LLVM's passes
# and MLIR's fusions it takes a third of the time. What the user gets is tested as well by
# XLA_FLAGS="--xla_backend_optimization_level=3 --xla_cpu_use_fusion_emitters=true" pytest
FLAGS = {
    "--xla_force_host_platform_device_count": "8",
    "--xla_backend_optimization_level": "0",
    "--xla_cpu_use_fusion_emitters": "false",
    "--xla_cpu_parallel_codegen_split_count": "1",
}
if version("jaxlib").split(".")[:2] > ["0", "10"]:  # whose XLA ends at flags that it lacks
    del FLAGS["--xla_cpu_use_fusion_emitters"]
given = os.environ.get("XLA_FLAGS", "")
added = [f"{name}={value}" for name, value in FLAGS.items() if name not in given]
os.environ["XLA_FLAGS"] = " ".join([given, *added]).strip()
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# Both workers, the processes that tests start and the next run share what is compiled.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ait_jax" / "xla_tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Programs that do not say from which lines they come are lowered faster.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# A shell's `pytest &` ignores Ctrl-C, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Tracing makes many small objects that live on: at Python's thresholds looking through them
# again and again takes a tenth of the time.
gc.set_threshold(50_000, 20, 100)
# Shapes, dtypes and types of what they are given and return are checked in every call.
install_import_hook([f"ait_jax.{module}" for module in CHECKED], "checked.types")
# `pytest -n0 --hypothesis-profile=long FILE` tries 10,000 examples of every property.
for profile, examples in {"short": 60, "long": 10_000}.items():
    settings.register_profile(
        profile,
        max_examples=examples,
        derandomize=profile == "short",
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
settings.load_profile("short")


@pytest.fixture
def clean_gin():
    """Gin's configuration, its search path and Python's are global: leaves them as they were."""
    import gin
    from ait_jax.config import gin_internals

    path, folders = list(sys.path), gin_internals.search_path()
    gin.clear_config()
    yield gin
    gin.clear_config()
    sys.path[:] = path
    gin_internals.set_search_path(folders)


# Files of more than half a minute, the longest first: none of them is begun when the other worker
# has nothing left to do. Those that run the same tiny experiment find its programs in the cache.
LONGEST = """
    test_active test_engine test_trainer_step test_continuous test_generations test_distributed
    test_feedback_step test_lora test_feedback test_decoding test_scoring test_continual
    test_memory_maps test_self_instruct_runs test_buckets test_group_rows test_raced_scoring
    test_attention test_llama test_grouped_attention test_round_zero test_preemption
    test_embedded_trainer test_processes test_extending test_embeddings test_group_windows test_plan
""".split()


def pytest_collection_modifyitems(items):
    """Long files come first; tests marked t5x run where T5X can be imported."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))
    names = ("t5x", "airio", "jestimator", "fiddle")
    mark = pytest.mark.skip(reason="T5X is not installed: see ait_jax/trainer/README.md")
    if all(importlib.util.find_spec(name) for name in names):
        mark = pytest.mark.filterwarnings("default")  # T5X is frozen: its warnings stay
    for item in items:
        if item.get_closest_marker("t5x"):
            item.add_marker(mark)


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """A bucket on loopback that gs:// goes to, in this process and those that it starts."""
    import bucket_server
    import fsspec

    from ait_jax.runtime import buckets  # before gcsfs, which reads its settings when imported

    with bucket_server.serving() as (bucket, address):
        for name, value in bucket_server.environment(address).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(buckets.CACHE, str(tmp_path / "bucket_cache"))
        _forget_file_systems(fsspec)
        yield bucket
        _forget_file_systems(fsspec)


def _forget_file_systems(fsspec):
    """They know the address of the bucket that was there when they were made."""
    from etils.epath import backend

    fsspec.get_filesystem_class("gcs").clear_instance_cache()
    backend._FileSystemSpecBackend._get_filesystem.cache_clear()


@pytest.fixture
def said():
    """The lines that the code under test says."""
    from ait_jax.runtime import reporter

    lines: list[str] = []
    with reporter.using(reporter.Reporter(line=lines.append)):
        yield lines
