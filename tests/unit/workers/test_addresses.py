"""Where experts may be called."""

from __future__ import annotations

import asyncio

import pytest

from domain.errors import ExpertTimeout, ExpertUnreachable
from workers.addresses import AddressPolicy, network_of
from workers.limits import HttpLimits
from workers.openai_worker import OpenAIWorker


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("127.0.0.1", "loopback"), ("127.8.8.8", "loopback"), ("::1", "loopback"), ("::ffff:127.0.0.1", "loopback"),
        ("10.0.0.1", "private"), ("192.168.3.4", "private"), ("172.16.0.1", "private"), ("100.64.0.1", "private"), ("fd12::1", "private"),
        ("8.8.8.8", "public"), ("2606:4700::1111", "public"),
        ("169.254.169.254", None), ("::ffff:169.254.169.254", None), ("fe80::1%eth0", None), ("fd00:ec2::254", None),
        ("100.100.100.200", None), ("0.0.0.0", None), ("::", None), ("224.0.0.1", None), ("240.0.0.1", None), ("255.255.255.255", None),
        ("2002:a9fe:a9fe::1", None),
    ],
)  # fmt: skip
def test_networks_of_addresses(address: str, network: str | None) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize(
    ("networks", "url", "says"),
    [
        ({"private", "public"}, "http://127.0.0.1:9/v1", "loopback addresses may not be called"),
        ({"private", "public"}, "http://localhost:9/v1", "loopback addresses may not be called"),
        ({"loopback", "private", "public"}, "http://169.254.169.254/v1", "are never called"),
        ({"loopback", "private", "public"}, "http://[::ffff:a9fe:a9fe]/v1", "are never called"),
        ({"private", "public"}, "http://0x7f.1:9/v1", "loopback addresses may not be called"),
    ],
)
async def test_the_address_is_looked_at_when_a_connection_is_made(networks: set[str], url: str, says: str) -> None:
    """Of a literal address and of what a name means at that moment; it is not tried again."""
    worker = OpenAIWorker(HttpLimits(), {}, AddressPolicy(networks))
    await worker.start()
    try:
        with pytest.raises(ExpertUnreachable, match=says) as caught:
            await worker.get_json(f"{url}/models", None, who="the server")
    finally:
        await worker.close()
    assert not caught.value.retryable


async def test_a_name_that_nobody_resolves_is_no_longer_waited_for_than_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding the address is part of connecting: a name server that is silent must not take the call's whole time."""

    async def silent(*_: object, **__: object) -> list[object]:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr("aiohttp.resolver.ThreadedResolver.resolve", silent)
    monkeypatch.setattr("aiohttp.resolver.AsyncResolver.resolve", silent, raising=False)
    worker = OpenAIWorker(HttpLimits(connect_timeout_s=0.05), {})
    await worker.start()
    try:
        with pytest.raises(ExpertTimeout, match="took too long to accept a connection"):
            async with asyncio.timeout(30):
                await worker.get_json("http://no-such-name.invalid/v1/models", None, who="the server")
    finally:
        await worker.close()
