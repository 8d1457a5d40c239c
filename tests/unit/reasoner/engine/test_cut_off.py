"""Without a network the hub is not contacted again and again."""

from __future__ import annotations

import os
import socket

import pytest

from reasoner.engine.environment import go_offline_where_cut_off

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.mark.parametrize(
    ("given", "fault", "offline"),
    [
        ({}, socket.gaierror("no name"), "1"),
        ({}, None, None),
        ({}, OSError("no socket"), None),
        ({"HF_HUB_OFFLINE": "0"}, socket.gaierror("no name"), "0"),
        ({"HTTPS_PROXY": "http://proxy:3128"}, socket.gaierror("no name"), None),
        ({"HF_ENDPOINT": "https://mirror.example"}, socket.gaierror("no name"), "1"),
    ],
)
def test_the_hub_is_left_alone_where_its_name_is_not_known(
    given: dict[str, str], fault: OSError | None, offline: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[object]:
        asked.append(host)
        if fault is not None:
            raise fault
        return []

    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", *PROXIES):
        monkeypatch.setenv(name, "")  # so that what is set below is taken back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    go_offline_where_cut_off()
    assert os.environ.get("HF_HUB_OFFLINE") == offline
    assert set(asked) <= {"huggingface.co", "mirror.example"}
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
