"""A storage application entity made of pynetdicom alone: ``python -m benchmarks.pynetdicom_peer PORT FOLDER``."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt


def serve(port: int, folder: Path) -> None:
    """Accept every storage class and write the bytes of each data set to a file, as they came."""
    numbers = itertools.count()

    def store(event: evt.Event) -> int:
        (folder / f"{next(numbers):06d}.dcm").write_bytes(event.encoded_dataset())
        return 0x0000

    entity = AE(ae_title="PEER")
    entity.supported_contexts = AllStoragePresentationContexts
    entity.maximum_pdu_size = 131072
    entity.maximum_associations = 64
    entity.start_server(("127.0.0.1", port), block=True, evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
