"""What the machine itself can do: the ceilings beside which every figure stands."""

from __future__ import annotations

import os
import socket
import statistics
import threading
import time
from pathlib import Path

MIB = 1024 * 1024


def disk_sync(folder: Path, *, writes: int = 400, size_bytes: int = MIB // 2) -> dict[str, float]:
    """Append `size_bytes` and fdatasync, one after the other: the least a durable acknowledgement can cost."""
    path = folder / "ceiling.bin"
    block = os.urandom(size_bytes)
    spans_s = []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        for _ in range(writes):
            begin_s = time.perf_counter()
            os.write(descriptor, block)
            os.fdatasync(descriptor)
            spans_s.append(time.perf_counter() - begin_s)
    finally:
        os.close(descriptor)
        path.unlink()
    return {
        "fdatasync_ms_median": round(statistics.median(spans_s) * 1e3, 3),
        "disk_mib_per_s": round(writes * size_bytes / MIB / sum(spans_s), 1),
    }


def loopback(*, total_bytes: int = 512 * MIB) -> dict[str, float]:
    """One TCP stream over loopback into a preallocated buffer."""
    listener = socket.create_server(("127.0.0.1", 0))

    def send() -> None:
        with socket.create_connection(listener.getsockname()) as sender:
            block = bytes(MIB)
            for _ in range(total_bytes // MIB):
                sender.sendall(block)

    thread = threading.Thread(target=send)
    begin_s = time.perf_counter()
    thread.start()
    connection, _ = listener.accept()
    buffer = bytearray(MIB)
    with connection:
        while connection.recv_into(buffer):
            pass
    thread.join()
    listener.close()
    return {"loopback_mib_per_s": round(total_bytes / MIB / (time.perf_counter() - begin_s), 1)}
