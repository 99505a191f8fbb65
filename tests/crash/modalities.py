"""Senders that go on whatever happens: over C-STORE and STOW-RS, each with its own stream of instances.

Of twenty instances of a stream, sixteen are its own: small ones, and larger ones that travel as claim checks (native
ones, which the worker rewrites, and Implicit VR ones, which it adopts). The others have to do with other streams: the
same content from everyone (duplicates), other content of everyone under one UID, a known UID under another study, and
one that cannot be filed. What gets no Success is sent again, as modalities do.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import count

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cli.association import Association, Peer, PeerLost
from instances.part10 import file_header
from tests.crash.ledger import Item, Ledger
from tests.datasets import MR_IMAGE_STORAGE, ROOT, dataset_bytes, mr_dataset
from tests.ingest.test_stow import MULTIPART, multipart

#: What travels as a claim check in these tests, in bytes: `SANSFILM_INLINE_MAX_BYTES`.
INLINE_MAX_BYTES = 65536
CONTEXTS = [(MR_IMAGE_STORAGE, ExplicitVRLittleEndian), (MR_IMAGE_STORAGE, ImplicitVRLittleEndian)]
_SHARED_STUDY, _ELSEWHERE_STUDY, _OWN_STUDY = 50, 70, 100
_PER_ASSOCIATION = 12
#: Between two instances of a stream.
PACE_S = 0.03
_PAUSE_S = 0.05
_TIMEOUT_S = 20.0


def item(stream: int, number: int) -> Item:
    """The instance `number` of a stream; the same whenever it is asked for."""
    turn = number % 20
    if turn == 4:
        return encoded("duplicate", number, study=_SHARED_STUDY, series=1)
    if turn == 9:
        return encoded("conflict", number, study=_SHARED_STUDY, series=2, seed=stream)
    if turn == 14:
        uid = f"{ROOT}.{_SHARED_STUDY}.1.{number - 10}"
        return encoded("elsewhere", number, study=_ELSEWHERE_STUDY + stream, series=1, SOPInstanceUID=uid)
    if turn == 19:
        return encoded("unfileable", number, study=_OWN_STUDY + stream, series=9)
    if turn in (2, 12):
        return encoded("claim", number, study=_OWN_STUDY + stream, series=2, rows=256, columns=160)
    if turn in (7, 17):
        return encoded("adopted", number, study=_OWN_STUDY + stream, series=3, rows=256, columns=160)
    return encoded("own", number, study=_OWN_STUDY + stream, series=1)


def encoded(kind: str, number: int, *, rows: int = 32, columns: int = 32, **options: object) -> Item:
    """One instance, encoded."""
    dataset = mr_dataset(number, rows=rows, columns=columns, **options)  # type: ignore[arg-type]
    if kind == "unfileable":
        del dataset.SeriesInstanceUID
    syntax = ImplicitVRLittleEndian if kind == "adopted" else ExplicitVRLittleEndian
    return Item(
        kind=kind,
        sop_class_uid=MR_IMAGE_STORAGE,
        sop_instance_uid=str(dataset.SOPInstanceUID),
        transfer_syntax=syntax,
        dataset=dataset_bytes(dataset, syntax),
    )


class Modality:
    """A sender with a thread of its own, started at once; close it."""

    route = ""

    def __init__(self, stream: int, port: int, ledger: Ledger, first: int = 0, *, pace_s: float = PACE_S) -> None:
        self._stream = stream
        self._pace_s = pace_s
        self._port = port
        self._ledger = ledger
        self._first = first
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{self.route}-{stream}")
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing new."""
        self._stop.set()

    def close(self) -> None:
        """Stop, and wait for the end of what is being sent."""
        self.stop()
        self._thread.join(2 * _TIMEOUT_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            for number in count(self._first):
                if self._stop.wait(self._pace_s):
                    return
                self._insist(item(self._stream, number))
        finally:
            self._hang_up()

    def _insist(self, one: Item) -> None:
        self._ledger.offer(one)
        while not self._sent(one):
            if self._stop.wait(_PAUSE_S):
                return

    def _sent(self, one: Item) -> bool:
        try:
            status = self._send(one)
        except (PeerLost, OSError, http.client.HTTPException):
            self._ledger.lose(self.route)
            return False
        if status != 0:
            self._ledger.refuse(status)
            return False
        self._ledger.acknowledge(one, self.route)
        return True

    def _send(self, one: Item) -> int:
        """Send `one`; 0 for Success. Raises PeerLost, OSError or HTTPException without an answer."""
        raise NotImplementedError

    def _hang_up(self) -> None:
        """Leave nothing open."""


class CStoreModality(Modality):
    """Sends over associations, a dozen instances each."""

    route = "cstore"

    def __init__(self, stream: int, port: int, ledger: Ledger, first: int = 0, *, pace_s: float = PACE_S) -> None:
        self._association: Association | None = None
        self._instances: Iterator[int] = count()
        super().__init__(stream, port, ledger, first, pace_s=pace_s)

    def _send(self, one: Item) -> int:
        if self._association is None:
            peer = Peer(called_ae="SANSFILM", host="127.0.0.1", port=self._port, calling_ae=f"MR{self._stream}")
            self._association = Association(peer, CONTEXTS, timeout_s=_TIMEOUT_S)
        try:
            context = (one.sop_class_uid, one.transfer_syntax)
            status = self._association.store(context, one.sop_instance_uid, memoryview(one.dataset))
        except PeerLost:
            self._association.abort()
            self._association = None
            raise
        if next(self._instances) % _PER_ASSOCIATION == 0:
            self._hang_up()
        return status

    def _hang_up(self) -> None:
        if self._association is not None:
            self._association.release()
            self._association = None


class StowModality(Modality):
    """Sends one instance a request (PS3.18 10.5)."""

    route = "stow"

    def _send(self, one: Item) -> int:
        header = file_header(
            sop_class_uid=one.sop_class_uid,
            sop_instance_uid=one.sop_instance_uid,
            transfer_syntax=one.transfer_syntax,
        )
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)) as connection:
            body = multipart([header + one.dataset])
            connection.request("POST", "/dicom-web/studies", body, {"Content-Type": MULTIPART})
            with connection.getresponse() as answer:
                answer.read()
                return 0 if answer.status == 200 else answer.status


def store_once(port: int, one: Item) -> int:
    """Send `one` over an association of its own; gives the status."""
    association = Association(Peer(called_ae="SANSFILM", host="127.0.0.1", port=port), CONTEXTS, timeout_s=_TIMEOUT_S)
    status = association.store((one.sop_class_uid, one.transfer_syntax), one.sop_instance_uid, memoryview(one.dataset))
    association.release()
    return status
