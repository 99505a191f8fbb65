"""Binding: one clear sentence for each thing that may be wrong."""

from __future__ import annotations

import os
import socket

import pytest

from ingest.edge import bind_dicom
from runtime.errors import Misconfigured
from runtime.settings import EdgeSettings


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_binds_and_listens() -> None:
    port = free_port()
    with bind_dicom(EdgeSettings(dicom_port=port)) as listener:
        with socket.create_connection(("127.0.0.1", port), 5):
            pass
        assert listener.getsockname() == ("127.0.0.1", port)


@pytest.mark.parametrize("option", [socket.SO_REUSEADDR, socket.SO_REUSEPORT])
def test_an_occupant_is_found(option: int) -> None:
    """Even one that would share its port with us."""
    with socket.socket() as occupant:
        occupant.setsockopt(socket.SOL_SOCKET, option, 1)
        occupant.bind(("127.0.0.1", 0))
        occupant.listen()
        with pytest.raises(Misconfigured, match=r"port \d+ on 127.0.0.1 is in use"):
            bind_dicom(EdgeSettings(dicom_port=occupant.getsockname()[1]))


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(Misconfigured, match="not an address of this machine"):
        bind_dicom(EdgeSettings(bind_address="192.0.2.1", dicom_port=free_port(), insecure_demo=True))


def test_a_name_nobody_knows() -> None:
    with pytest.raises(Misconfigured, match="cannot be resolved"):
        bind_dicom(EdgeSettings(bind_address="no-such-host.invalid", dicom_port=free_port(), insecure_demo=True))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may bind any port")
def test_a_privileged_port() -> None:
    with pytest.raises(Misconfigured, match="privileged"):
        bind_dicom(EdgeSettings(dicom_port=104))


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_closed_by_default(address: str) -> None:
    with pytest.raises(Misconfigured, match="SANSFILM_INSECURE_DEMO"):
        bind_dicom(EdgeSettings(bind_address=address, dicom_port=free_port()))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.7", "localhost", "::1"])
def test_every_loopback_is_open(address: str) -> None:
    try:
        bind_dicom(EdgeSettings(bind_address=address, dicom_port=free_port())).close()
    except Misconfigured as error:
        if address != "::1" or "not an address" not in str(error):
            raise
