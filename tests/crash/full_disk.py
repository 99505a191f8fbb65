"""What `test_full_disk` runs in a mount namespace of its own: the system on a small file system, filled by modalities.

`python -m tests.crash.full_disk FOLDER fill|last-byte mixture|small|large`: FOLDER is the mounted file system. What
happened is printed as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections import Counter
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path

from archive.catalog import Scope
from archive.sql_reader import SqlCatalogReader, open_reader
from cli.association import Association, Peer
from schemas.record import InstanceRecord
from tests.cli.test_up import House
from tests.crash.ledger import Item, Ledger
from tests.crash.modalities import CONTEXTS, INLINE_MAX_BYTES, encoded, item
from tests.crash.system import pids_by_role
from tests.waiting import until

MIB = 1024 * 1024
RESERVE_BYTES = 8 * MIB
SETTINGS = {
    "SANSFILM_INLINE_MAX_BYTES": str(INLINE_MAX_BYTES),
    "SANSFILM_LOG_FILE_MAX_BYTES": str(MIB),
    "SANSFILM_DISK_RESERVE_BYTES": str(RESERVE_BYTES),
    "SANSFILM_RESTART_WAIT_MAX_S": "0.25",
    "SANSFILM_RETRY_WAIT_MAX_S": "0.5",
}
STREAMS = 4
OUT_OF_RESOURCES = 0xA700
SCOPE = Scope(principal="test", tenant="default")


class Mixture:
    """All kinds of instances, at the pace at which they are made."""

    def __init__(self) -> None:
        self._numbers = count()

    def next(self, stream: int) -> Item:
        """The next one to send."""
        return item(stream, next(self._numbers))


class Burst:
    """One picture under ever new UIDs: as fast as it can be sent."""

    def __init__(self, rows: int, columns: int) -> None:
        self._model = encoded("own", 10**6, rows=rows, columns=columns)
        self._numbers = count(10**6)

    def next(self, stream: int) -> Item:
        """The next one to send."""
        old = self._model.sop_instance_uid
        uid = old.replace(str(10**6), str(next(self._numbers)))
        dataset = self._model.dataset.replace(old.encode(), uid.encode())
        return replace(self._model, sop_instance_uid=uid, dataset=dataset)


Source = Mixture | Burst


def send_until_refused(house: House, ledger: Ledger, source: Source) -> int:
    """Several associations at once, each until it is refused; gives how many instances were acknowledged."""
    before = ledger.successes_total
    threads = [threading.Thread(target=_send, args=(stream, house, ledger, source)) for stream in range(STREAMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    return ledger.successes_total - before


def _send(stream: int, house: House, ledger: Ledger, source: Source) -> None:
    peer = Peer(called_ae="SANSFILM", host="127.0.0.1", port=house.dicom_port)
    association = Association(peer, CONTEXTS, timeout_s=30)
    status = 0
    while status == 0:
        one = source.next(stream)
        ledger.offer(one)
        context = (one.sop_class_uid, one.transfer_syntax)
        status = association.store(context, one.sop_instance_uid, memoryview(one.dataset))
        if status == 0:
            ledger.acknowledge(one, "cstore")
        else:
            ledger.refuse(status)
    association.release()


def drained(house: House) -> None:
    """Wait until the log is empty."""
    done = house.run("status", "--wait-drained", "--timeout-s", "60", "--json")
    assert done.returncode == 0, done.stdout + done.stderr


def fill(folder: Path, source: Source) -> dict[str, object]:
    """Until nothing more is taken although everything acknowledged is committed. The worker dies on the way."""
    house, ledger = House(folder / "data"), Ledger()
    with house.up(**SETTINGS) as process:
        rounds = [send_until_refused(house, ledger, source)]
        waiting = house.status()["lag_messages"]
        os.kill(pids_by_role(process)["worker"], signal.SIGKILL)
        while rounds[-1] and len(rounds) < 100:
            drained(house)
            rounds.append(send_until_refused(house, ledger, source))
        drained(house)
        said = {**_account(house, ledger), "rounds": rounds, "waiting": waiting}
        process.send_signal(signal.SIGTERM)
        said["exit_code"] = process.wait(30)
    said["verify"] = house.run("archive", "verify", "--json").returncode
    return said


def fill_to_the_last_byte(folder: Path, source: Source) -> dict[str, object]:
    """Somebody else takes all the space, the reserve included; the worker dies, and the space comes back."""
    house, ledger = House(folder / "data"), Ledger()
    filler = folder / "filler"
    with house.up(**SETTINGS) as process:
        thread = threading.Thread(target=send_until_refused, args=(house, ledger, source))
        thread.start()
        until(lambda: ledger.successes_total > 50, what="some traffic")
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(bytes(MIB))
                    file.flush()
            except OSError:
                pass
            finally:
                os.truncate(filler, filler.stat().st_size)
        thread.join(60)
        free_bytes = shutil.disk_usage(folder).free
        worker = pids_by_role(process)["worker"]
        os.kill(worker, signal.SIGKILL)
        until(lambda: pids_by_role(process).get("worker", worker) != worker, what="the worker's restart")
        filler.unlink()
        until(lambda: len(pids_by_role(process)) == 3, what="all roles")
        drained(house)
        said = {**_account(house, ledger), "free_bytes": free_bytes}
        process.send_signal(signal.SIGTERM)
        said["exit_code"] = process.wait(30)
    said["verify"] = house.run("archive", "verify", "--json").returncode
    return said


def _account(house: House, ledger: Ledger) -> dict[str, object]:
    with closing(open_reader(house.folder / "catalog" / "catalog.sqlite")) as reader:
        committed = _committed(reader)
        reasons = Counter(str(entry["reason"]) for entry in reader.quarantined(SCOPE))
    return {
        "acknowledged": len(ledger.acknowledged),
        "missing": sorted(ledger.acknowledged.keys() - committed.keys()),
        "twice": [content for content, times in committed.items() if times > 1],
        "refusals": {f"{status:04X}": times for status, times in ledger.refusals.items()},
        "quarantined": dict(reasons),
    }


def _committed(reader: SqlCatalogReader) -> Counter[tuple[str, str]]:
    return Counter(
        (placed.record.instance.sop_instance_uid, placed.record.wire_sha256)
        for placed, _ in reader.placed()
        if isinstance(placed.record, InstanceRecord)
    )


#: 60 kB stay in the log; 0.5 MB travel as claim checks.
SOURCES = {"mixture": Mixture, "small": lambda: Burst(160, 192), "large": lambda: Burst(512, 512)}

if __name__ == "__main__":
    what = fill_to_the_last_byte if sys.argv[2] == "last-byte" else fill
    print(json.dumps(what(Path(sys.argv[1]), SOURCES[sys.argv[3]]())))
