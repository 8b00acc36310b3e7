"""A prepared pool's folder in a bucket, where a lock is a lease. On disk: test_self_instruct.py."""

import threading

from ait_jax.tasks.prepared_folder import PreparedFolder

from ait_jax.runtime import files
from ait_jax.runtime import lease as lease_module


def test_preparations_in_a_bucket_take_turns(bucket, monkeypatch, capsys):
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(lease_module, "STALE_SECONDS", 1.5)
    monkeypatch.setattr(lease_module, "_LOOK_SECONDS", 0.2)
    found = []

    def prepare():
        folder = PreparedFolder("gs://bucket/data", "pool", "ait-jax prepare")
        with folder.locked():
            found.append(folder.read_record() is not None)
            threading.Event().wait(0.5)
            if not found[-1]:
                with folder.replacing() as building:
                    building.mkdir()
                    files.write_text(building / "source.json", '{"schema": 1, "files": {}}')

    threads = [threading.Thread(target=prepare) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [False, True, True]
    assert bucket.names() == ["bucket/data/pool/source.json"]
    assert "waiting for another preparation" in capsys.readouterr().out
