"""Pools as TFDS builders and SeqIO registries."""

import os
import sys

# Where prepared pools are kept by default, as by TFDS (DATA_DIR in gin/pools).
DEFAULT_DATA_DIR = "~/tensorflow_datasets"

# For T5X's `import ait_jax.tasks`: SeqIO is loaded and the user has named the data. Anywhere else
# importing this package must cost nothing and not load TensorFlow.
if "seqio" in sys.modules and os.environ.get("AIT_JAX_DATA_DIR"):
    from ait_jax.tasks import registry  # noqa: F401
