"""Where the shared real data lies, when it is there; tests that need it say so when it is not."""

from pathlib import Path

import pytest

SUPPORT = Path(__file__).resolve().parent
TESTS = SUPPORT.parent
REPOSITORY = TESTS.parent
SHARED = REPOSITORY.parent / "shared"
NIV2 = SHARED / "data" / "natural-instructions"
ACTIVE_IT = SHARED / "data" / "active-it"
GOLDEN_T5X = SHARED / "t5x" / "golden_t5_1_1_tiny"

needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs ../shared (real NIV2 tasks and T5X numbers), absent here"
)


def combine_dev_and_test(folder: Path) -> None:
    """Turns split files into the authors' form: both hold the test tasks, then the dev tasks."""
    dev, test = (folder / f"{split}_tasks.txt" for split in ("dev", "test"))
    both = test.read_bytes() + dev.read_bytes()
    dev.write_bytes(both)
    test.write_bytes(both)
