"""Which address a request comes from, and whether it gets in."""

import pytest
from multidict import CIMultiDict

from adapter.access.allowlist import AddressError, AddressRules, address, forwarded_for, networks

ALLOW = networks("10.0.0.0/8, 2001:db8::/32 192.0.2.7")
HEALTH = networks("172.26.64.1")
PROXIES = networks("10.9.0.0/16, 2001:db8:9::/48, 198.51.100.9")
RULES = AddressRules(ALLOW, HEALTH, PROXIES)


def admits(peer: str, *headers: tuple[str, str], health: bool = False) -> tuple[str, bool]:
    return RULES.admits(peer, CIMultiDict(headers), health=health)


def test_networks_are_separated_by_commas_spaces_and_lines_with_comments() -> None:
    text = "10.0.0.0/8,192.0.2.1 # the office\n\n# nothing\n2001:db8::/32\t::1"
    assert [str(n) for n in networks(text)] == ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "::1/128"]


def test_every_mistake_in_a_list_is_named() -> None:
    with pytest.raises(AddressError) as caught:
        networks("10.0.0.1/8, nowhere, 300.1.1.1, 10.0.0.0/33, 010.0.0.1")
    assert caught.value.problems == [
        "10.0.0.1/8 has host bits set",
        "'nowhere' is no address and no network",
        "'300.1.1.1' is no address and no network",
        "'10.0.0.0/33' is no address and no network",
        "'010.0.0.1' is no address and no network",
    ]


@pytest.mark.parametrize(
    ("peer", "admitted"),
    [
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:11.0.0.1", False),
        ("2001:db8:1::1", True),
        ("2001:db9::1", False),
        ("fe80::1%eth0", False),
        ("", False),
    ],
)
def test_an_address_gets_in_by_the_networks_it_is_in(peer: str, admitted: bool) -> None:
    assert admits(peer)[1] is admitted


def test_mapped_networks_are_ipv4() -> None:
    rules = AddressRules(networks("::ffff:10.0.0.0/104"), (), ())
    assert rules.admits("10.1.2.3", CIMultiDict(), health=False)[1]


def test_the_health_checker_gets_in_on_health_alone() -> None:
    assert admits("172.26.64.1", health=True)[1]
    assert not admits("172.26.64.1")[1]


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded"])
def test_a_stranger_cannot_name_himself_an_allowed_address(name: str) -> None:
    value = "10.0.0.1" if name.startswith("X") else "for=10.0.0.1"
    assert admits("203.0.113.5", (name, value)) == ("203.0.113.5", False)


@pytest.mark.parametrize(
    ("header", "value", "client", "admitted"),
    [
        ("X-Forwarded-For", "192.0.2.7", "192.0.2.7", True),
        ("X-Forwarded-For", "10.0.0.1, 203.0.113.5", "203.0.113.5", False),
        ("X-Forwarded-For", "203.0.113.5, 10.0.0.1", "10.0.0.1", True),
        ("X-Forwarded-For", "192.0.2.7, 10.9.0.1, 198.51.100.9", "192.0.2.7", True),
        ("X-Forwarded-For", "198.51.100.9", "198.51.100.9", False),
        ("X-Forwarded-For", "192.0.2.7:4711", "192.0.2.7", True),
        ("X-Forwarded-For", "[2001:db8::5]:4711", "2001:db8::5", True),
        ("X-Forwarded-For", "::ffff:192.0.2.7", "192.0.2.7", True),
        ("X-Forwarded-For", "192.0.2.7, unknown", "10.9.0.1", False),
        ("X-Forwarded-For", "192.0.2.7,", "10.9.0.1", False),
        ("X-Forwarded-For", "", "10.9.0.1", False),
        ("X-Forwarded-For", ",".join(["192.0.2.7"] * 33), "10.9.0.1", False),
        ("Forwarded", "for=192.0.2.7;proto=https;by=10.9.0.1", "192.0.2.7", True),
        ("Forwarded", 'for="[2001:db8::5]:47011"', "2001:db8::5", True),
        ("Forwarded", "for=10.0.0.1, for=203.0.113.5", "203.0.113.5", False),
        ("Forwarded", 'for=192.0.2.7;host="a,for=203.0.113.5"', "192.0.2.7", True),
        ("Forwarded", "for=_hidden", "10.9.0.1", False),
        ("Forwarded", "for=192.0.2.7;for=192.0.2.7", "10.9.0.1", False),
        ("Forwarded", "for=192.0.2.7, by=10.9.0.1", "10.9.0.1", False),
        ("Forwarded", 'for="192.0.2.7', "10.9.0.1", False),
    ],
)
def test_behind_a_trusted_proxy_the_client_is_the_rightmost_that_is_none(
    header: str, value: str, client: str, admitted: bool
) -> None:
    assert admits("10.9.0.1", (header, value)) == (client, admitted)


def test_lines_of_a_header_are_read_as_one_list() -> None:
    assert admits("10.9.0.1", ("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-For", "203.0.113.5"))[1] is False


def test_a_proxy_that_names_nobody_speaks_for_itself() -> None:
    assert admits("10.9.0.1") == ("10.9.0.1", True)
    assert admits("198.51.100.9") == ("198.51.100.9", False)


def test_two_headers_that_disagree_let_nobody_in() -> None:
    xff, forwarded = ("X-Forwarded-For", "10.0.0.1"), ("Forwarded", "for=192.0.2.7")
    assert admits("10.9.0.1", xff, forwarded) == ("10.9.0.1", False)
    assert admits("10.9.0.1", xff, ("Forwarded", "for=10.0.0.1")) == ("10.0.0.1", True)


def test_a_peer_that_can_never_get_in_is_known_without_its_request() -> None:
    assert [RULES.may_admit(peer) for peer in ("203.0.113.5", "10.0.0.1", "172.26.64.1", "198.51.100.9")] == [
        False,
        True,
        True,
        True,
    ]


def test_what_is_no_address_is_none() -> None:
    assert [address(text) for text in ("", "unknown", "_x", "1.2.3", "1.2.3.4:99999999", "[::1", "0x7f000001")] == [
        None
    ] * 7


@pytest.mark.parametrize("text", ["for=a b", "for", "=x", 'for="a"b', "for=1.2.3.4 for=5.6.7.8"])
def test_a_malformed_forwarded_header_says_nothing(text: str) -> None:
    assert forwarded_for(text) is None


def test_verdicts_are_remembered_within_bounds() -> None:
    rules = AddressRules(ALLOW, (), ())
    for number in range(20_000):
        rules.admits(f"11.0.{number >> 8}.{number & 255}", CIMultiDict(), health=False)
    assert len(rules._verdicts) <= 4096
