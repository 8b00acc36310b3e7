"""Packaging: every top-level folder lives inside the `ait_jax` package once installed."""

from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (HERE / "ait_jax" / "__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)
ENDPOINT = ["openai>=1.60", "tenacity>=9.0"]
LLAMA = ["gguf>=0.17", "tokenizers>=0.21"]

setup(
    name="ait-jax",
    version=VERSION,
    description="Active instruction tuning on JAX and TPU: find the tasks worth training on",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[
        "ait_jax",
        "ait_jax.assets",
        "ait_jax.commands",
        "ait_jax.compare",
        "ait_jax.config",
        "ait_jax.endpoint",
        "ait_jax.evaluation",
        "ait_jax.gin",
        "ait_jax.launch",
        "ait_jax.models",
        "ait_jax.models.checkpoints",
        "ait_jax.plan",
        "ait_jax.pool",
        "ait_jax.prompts",
        "ait_jax.report",
        "ait_jax.rounds",
        "ait_jax.runtime",
        "ait_jax.scorer",
        "ait_jax.selection",
        "ait_jax.summaries",
        "ait_jax.tasks",
        "ait_jax.tasks.grow",
        "ait_jax.tasks.mini",
        "ait_jax.tasks.mini_base",
        "ait_jax.trainer",
    ],
    package_dir={
        "ait_jax": "ait_jax",
        "ait_jax.tasks": "tasks",
        "ait_jax.launch": "launch",
        "ait_jax.gin": "gin",
    },
    package_data={
        "ait_jax": ["py.typed"],
        "ait_jax.gin": ["*.gin", "*/*.gin"],
        "ait_jax.assets": ["*/*"],
        "ait_jax.launch": ["assets/*"],
        "ait_jax.report": ["assets/*"],
        "ait_jax.runtime": ["*.toml"],
        "ait_jax.tasks.grow": ["*.toml"],
        "ait_jax.tasks.mini": ["*.toml"],
        "ait_jax.tasks.mini_base": ["*.toml", "*.txt"],
    },
    install_requires=[
        "absl-py>=2.1",
        "array-record>=0.7",
        "etils[epath]>=1.9",
        "flax>=0.10.7",
        "gin-config>=0.5.0",
        "grain>=0.2.12",
        "jax>=0.7.0",
        "jaxtyping>=0.3.2",
        "matplotlib>=3.9",
        "msgspec>=0.19",
        "numpy>=1.26",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.20",
        "plotly>=6",
        "pyarrow>=17",
        "pyyaml>=6.0",
        "rich>=13.7",
        "rouge-score>=0.1.2",
        "scipy>=1.13",
        "sentencepiece>=0.2.0",
        "seqio>=0.0.20",
        "tensorboardX>=2.6.2",
        "tensorflow>=2.19",
        "tensorflow-datasets>=4.9.8",
        "tensorstore>=0.1.71",
    ],
    extras_require={
        "tpu": ["jax[tpu]", "gcsfs>=2025.3"],
        # gs:// paths; s3:// needs s3fs, az:// adlfs.
        "gcs": ["gcsfs>=2025.3"],
        # `ait-jax plan --topology`: the TPU compiler, also where there is no TPU.
        "plan": ["jax[tpu]"],
        "cuda": ["jax[cuda12]"],
        # `ait-jax judge` and what else asks an OpenAI-compatible endpoint.
        "endpoint": ENDPOINT,
        # Decoder-only models: their tokenizers, and GGUF files.
        "llama": LLAMA,
        # SUMMARIES with Weights & Biases (summaries/wandb.gin).
        "wandb": ["wandb>=0.19"],
        # With requirements-t5x.txt; T5X itself is not on the package index.
        "t5x": ["cached_property>=1.5", "fiddle>=0.3", "tensorboard>=2.19"],
        "test": [
            *ENDPOINT,
            *LLAMA,
            "beartype>=0.20",
            "gcsfs>=2025.3",
            "hypothesis>=6.130",
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            "safetensors>=0.4.5",
        ],
        # What .ci/run and the hooks of .pre-commit-config.yaml check.
        "dev": ["import-linter>=2.5", "pre-commit>=4.2", "pyright[nodejs]>=1.1.400", "ruff>=0.12"],
        # tests/report/test_report_page.py; the browser itself is the system's Chromium.
        "browser": ["playwright>=1.49"],
        # transformers reads GGUF files with accelerate.
        "bench": [
            "accelerate>=1.15",
            "ctranslate2>=4.8",
            "psutil>=7.0",
            "torch>=2.13",
            "transformers>=5.23",
        ],
    },
    entry_points={"console_scripts": ["ait-jax = ait_jax.cli:main"]},
)
