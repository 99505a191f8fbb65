"""Large answers wait for their clients within a budget."""

from __future__ import annotations

import pytest

from dicomweb import waiting
from dicomweb.problems import Unavailable
from dicomweb.waiting import PIECE_MAX_BYTES, WaitingBodies

pytestmark = pytest.mark.anyio
BODY = bytes(range(256)) * 4096


async def test_a_body_in_pieces() -> None:
    pieces = WaitingBodies(1).pieces(BODY)
    given = [piece async for piece in pieces]
    assert b"".join(given) == BODY
    assert max(map(len, given)) <= PIECE_MAX_BYTES


async def test_a_body_counts_until_nobody_holds_it() -> None:
    bodies = WaitingBodies(10 * len(BODY))
    begun, unread = bodies.pieces(BODY), bodies.pieces(BODY)
    await anext(begun)
    assert bodies.size_bytes == 2 * len(BODY)
    del begun, unread
    assert bodies.size_bytes == 0


async def test_there_is_room_for_one_however_large_and_none_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_WAIT_S", 0.05)
    bodies = WaitingBodies(len(BODY) // 2)
    await bodies.room(len(BODY))
    held = bodies.pieces(BODY)
    with pytest.raises(Unavailable):
        await bodies.room(1)
    del held
    await bodies.room(len(BODY))
