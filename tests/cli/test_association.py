"""The outgoing association against byte-scripted peers: what a hostile or broken peer may do to `sansfilm send`."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cli.association import CONTEXTS_MAX, Association, Peer, PeerLost, PeerRefused
from runtime.errors import Misconfigured

MR = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = "1.2.840.10008.1.2.1"
CONTEXT = (MR, EXPLICIT)


@contextmanager
def peer(*scripts: Callable[[socket.socket], None]) -> Iterator[Peer]:
    """A listening peer that runs the first script on its first connection, the second on the next."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            for script in scripts:
                connected, _ = listener.accept()
                with connected:
                    script(connected)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield Peer(called_ae="PEER", host="127.0.0.1", port=listener.getsockname()[1])
        thread.join(10)
        assert not thread.is_alive()


def receive(connected: socket.socket) -> tuple[int, bytes]:
    """One PDU."""
    with connected.makefile("rb", buffering=0) as file:
        head = file.read(6)
        kind, size = struct.unpack(">BxI", head)
        body = b""
        while len(body) < size:
            body += file.read(size - len(body))
        return kind, body


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def accept(pdu_max_bytes: int = 16384, result: int = 0) -> bytes:
    context = item(0x21, bytes((1, 0, result, 0)) + item(0x40, EXPLICIT.encode()))
    body = bytes(68) + context + item(0x50, item(0x51, struct.pack(">I", pdu_max_bytes)))
    return struct.pack(">BxI", 2, len(body)) + body


def response(status: int) -> bytes:
    elements = struct.pack("<HHIH", 0, 0x0100, 2, 0x8001) + struct.pack("<HHIH", 0, 0x0900, 2, status)
    pdv = struct.pack(">IBB", len(elements) + 2, 1, 3) + elements
    return struct.pack(">BxI", 4, len(pdv)) + pdv


def read_data_set(connected: socket.socket) -> tuple[list[int], bytes]:
    """Sizes of the PDUs of one C-STORE, and its data set."""
    sizes, dataset = [], b""
    while True:
        kind, body = receive(connected)
        assert kind == 4
        size, _, flags = struct.unpack_from(">IBB", body)
        assert size == len(body) - 4
        if not flags & 1:
            sizes.append(len(body))
            dataset += body[6:]
            if flags & 2:
                return sizes, dataset


@pytest.mark.parametrize(
    ("text", "called_ae", "host", "port"),
    [
        ("PACS@10.0.0.1:104", "PACS", "10.0.0.1", 104),
        ("localhost:11112", "ANY-SCP", "localhost", 11112),
        ("MY PACS@[::1]:4242", "MY PACS", "::1", 4242),
    ],
)
def test_a_peer_is_parsed(text: str, called_ae: str, host: str, port: int) -> None:
    parsed = Peer.parse(text)
    assert (parsed.called_ae, parsed.host, parsed.port) == (called_ae, host, port)


@pytest.mark.parametrize("text", ["", "PACS", "PACS@host", "PACS@host:0", "PACS@host:99999", "A" * 17 + "@host:104"])
def test_what_is_no_peer_is_said(text: str) -> None:
    with pytest.raises(Misconfigured, match="AE@host:port"):
        Peer.parse(text)


def test_the_data_set_arrives_unchanged_in_pdus_of_the_peers_size() -> None:
    sent = bytes(range(256)) * 400
    heard: list[tuple[list[int], bytes]] = []

    def script(connected: socket.socket) -> None:
        receive(connected)
        connected.sendall(accept(pdu_max_bytes=4096))
        heard.append(read_data_set(connected))
        connected.sendall(response(0))
        receive(connected)
        connected.sendall(struct.pack(">BxI4x", 6, 4))

    with peer(script) as address:
        association = Association(address, [CONTEXT], timeout_s=5)
        assert association.store(CONTEXT, "1.2.3", memoryview(sent)) == 0
        association.release()
    sizes, dataset = heard[0]
    assert dataset == sent
    assert max(sizes) == 4096


@pytest.mark.parametrize("size", [0, 4090, 4091])
def test_data_sets_at_the_pdu_boundary(size: int) -> None:
    heard: list[bytes] = []

    def script(connected: socket.socket) -> None:
        receive(connected)
        connected.sendall(accept(pdu_max_bytes=4096))
        heard.append(read_data_set(connected)[1])
        connected.sendall(response(0xB000))

    with peer(script) as address:
        association = Association(address, [CONTEXT], timeout_s=5)
        assert association.store(CONTEXT, "1.2.3", memoryview(bytes(size))) == 0xB000
        association.abort()
    assert heard == [bytes(size)]


def test_a_refusal_in_mid_transfer_is_heard() -> None:
    """The peer answers and closes with most of the data set unread: sending fails, and the answer still counts."""

    def script(connected: socket.socket) -> None:
        receive(connected)
        connected.sendall(accept())
        receive(connected)
        receive(connected)
        connected.sendall(response(0xA700))

    with peer(script) as address:
        association = Association(address, [CONTEXT], timeout_s=5)
        assert association.store(CONTEXT, "1.2.3", memoryview(bytes(32 * 1024 * 1024))) == 0xA700
        association.abort()


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (struct.pack(">BxIxBBB", 3, 4, 1, 1, 7), PeerRefused, "called AE title not recognized"),
        (struct.pack(">BxIxBBB", 3, 4, 2, 3, 2), PeerLost, "local limit exceeded"),
        (struct.pack(">BxI4x", 7, 4), PeerLost, "aborted"),
        (struct.pack(">BxI", 2, 0xFFFFFFF0), PeerLost, "beyond any response's size"),
        (struct.pack(">BxI4x", 4, 4), PeerLost, "PDU type 04H where 02H was due"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", PeerLost, "beyond any response's size"),
        (b"", PeerLost, "closed the connection"),
    ],
)
def test_what_a_peer_may_answer_instead(answer: bytes, error: type[Exception], words: str) -> None:
    def script(connected: socket.socket) -> None:
        receive(connected)
        connected.sendall(answer)

    with peer(script) as address, pytest.raises(error, match=words):
        Association(address, [CONTEXT], timeout_s=5)


def test_a_silent_peer_is_given_up() -> None:
    released = threading.Event()

    def script(connected: socket.socket) -> None:
        released.wait(10)

    with peer(script) as address:
        with pytest.raises(PeerLost, match="timed out"):
            Association(address, [CONTEXT], timeout_s=0.05)
        released.set()


@pytest.mark.parametrize(
    "pdv",
    [struct.pack(">IBB", 0xFFFFFFFF, 1, 3) + bytes(8), struct.pack(">IBB", 1, 1, 3), struct.pack(">IBB", 2, 1, 3)],
)
def test_a_malformed_response_ends_the_association(pdv: bytes) -> None:
    def script(connected: socket.socket) -> None:
        receive(connected)
        connected.sendall(accept())
        read_data_set(connected)
        connected.sendall(struct.pack(">BxI", 4, len(pdv)) + pdv)

    with peer(script) as address:
        association = Association(address, [CONTEXT], timeout_s=5)
        with pytest.raises(PeerLost):
            association.store(CONTEXT, "1.2.3", memoryview(b"x"))
        association.abort()


def test_a_context_that_was_not_accepted() -> None:
    def script(connected: socket.socket) -> None:
        receive(connected)
        connected.sendall(accept(result=4))

    with peer(script) as address:
        association = Association(address, [CONTEXT], timeout_s=5)
        assert association.accepted == {}
        association.abort()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(PeerLost, match="cannot be reached: connection refused"):
        Association(Peer(called_ae="X", host="127.0.0.1", port=port), [CONTEXT])


def test_no_more_contexts_than_the_standard_has() -> None:
    with pytest.raises(ValueError, match="1 to 128"):
        Association(Peer(called_ae="X", host="127.0.0.1", port=1), [CONTEXT] * (CONTEXTS_MAX + 1))
