#!/usr/bin/env python3
"""What makes the demo fail, one made-up result a row. Prints PASS and FAIL
lines."""

import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import demo  # noqa: E402

# What dwcat reports of a sound transfer.
SOUND = {
    "maps_of_device_memory": 0,
    "maps_looks": 3,
    "slots_missing": 0,
    "linear_bytes": 0,
    "nic_payload_landed_host_bytes": 0,
    "min_slot_fills": demo.SLOT_FILLS,
    "device_bytes": 1 << 20,
}
# One thing wrong, and what must be said.
ROWS = [
    ({}, None),
    ({"maps_of_device_memory": 1}, "device memory was mapped"),
    ({"maps_looks": 2}, "mappings were not read"),
    ({"slots_missing": 1}, "slots are missing"),
    ({"linear_bytes": 1}, "delivered through host memory"),
    ({"nic_payload_landed_host_bytes": 1}, "landed in host memory"),
    ({"min_slot_fills": demo.SLOT_FILLS - 1}, "filled only 9 times"),
    ({"device_bytes": 1}, "1 bytes came by device memory"),
    ({"sha256": "another"}, "what the GPU hashed differs"),
]


def main():
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        file = folder / "file"
        file.write_bytes(bytes(1 << 20))
        for wrong, words in ROWS:
            run = demo.Demo(file, folder, False, pool_bytes=1 << 16)
            result = {**SOUND, "sha256": run.sha256, **wrong}
            run.check_stack("run", result, host_payload_allowed=False)
            run.check_received("run", result)
            said = "; ".join(run.complaints)
            ok = words in said if words else not said
            name = next(iter(wrong), "a sound transfer")
            print(f"{'PASS' if ok else 'FAIL'}: {name}: {said or 'no complaint'}")
            failed |= not ok
    sys.exit(failed)


if __name__ == "__main__":
    main()
