"""The value of --net."""

from __future__ import annotations

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.parts.net.net_option import Forward, NetRequest, forwarded, net, with_paths


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("none", NetRequest("none")),
        ("loop", NetRequest("loop")),
        ("user,mac=02:00:00:00:00:09", NetRequest("user", mac=bytes((2, 0, 0, 0, 0, 9)))),
        ("pcap:a,,b.pcap", NetRequest("none", pcap="a,b.pcap")),
        ("user,pcap=x", NetRequest("user", pcap="x")),
        (
            "user,forward=tcp:8080:80,forward=udp:69:69",
            NetRequest("user", forwards=(Forward("tcp", 8080, 80), Forward("udp", 69, 69))),
        ),
        (
            "socket:unix:a:b,listen,mac=02:00:00:00:00:01",
            NetRequest("socket", "unix:a:b", mac=bytes((2, 0, 0, 0, 0, 1)), listen=True),
        ),
    ],
)
def test_text_is_read_and_written(text: str, wanted: NetRequest) -> None:
    assert net(text) == wanted
    assert net(str(wanted)) == wanted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is no backend"),
        ("tap", "'tap' is no backend"),
        ("loop:x", "'loop:x' is no backend"),
        ("loop,on=ne2k", "there is no interface 'ne2k'"),
        ("loop,mac=01:00:00:00:00:00", "is no address of an interface"),
        ("loop,mac=00:00:00:00:00:00", "is no address of an interface"),
        ("loop,mac=02", "is no address of an interface"),
        ("loop,pcap=", "'pcap=' means nothing there"),
        ("loop,pcap=a,pcap=b", "it says pcap twice"),
        ("pcap:a,pcap=b", "it says pcap twice"),
        ("pcap:", "it names no file"),
        ("loop,listen", "only a socket listens"),
        ("loop,forward=tcp:1:2", "only the backend 'user' forwards ports"),
        ("user,forward=tcp:80:0", "'tcp:80:0' forwards nothing"),
        ("user,forward=tcp:65536:1", "forwards nothing"),
        ("user,forward=sctp:1:1", "forwards nothing"),
        ("switch:a b", "is no name of a switch"),
        ("switch:../a", "is no name of a switch"),
        ("tap:0123456789abcdef", "is no name of an interface"),
        ("fd:x", "is no descriptor"),
        ("fd:2", "descriptor 2 is stdin, stdout or stderr"),
        ("socket:net.sock", "it names no socket"),
        ("socket:unix:", "it names no socket"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_hint(text: str, why: str) -> None:
    with pytest.raises(UsageError, match="--net") as raised:
        net(text)
    assert why in str(raised.value)
    assert raised.value.hint


def test_address_is_the_same_alone_and_another_one_where_others_may_be() -> None:
    assert net("user").address(0) == net("loop").address(0) != net("user").address(1)
    first, second = (net("switch:lan").address(0) for _ in range(2))
    assert first != second
    assert {first[0], second[0]} == {2}


def test_free_port_of_the_host_is_chosen_once() -> None:
    request = net("user,forward=tcp:80")

    assert request.forwards[0].host > 0
    assert net(request) is request


def test_paths_are_placed_and_nothing_else_is() -> None:
    place = "/suite/{}".format

    assert with_paths("user,pcap=a.pcap,forward=tcp:1:2", place) == "user,pcap=/suite/a.pcap,forward=tcp:1:2"
    assert with_paths("socket:unix:s,listen", place) == "socket:unix:/suite/s,listen"
    assert with_paths("pcap:a", place) == "pcap:/suite/a"
    assert with_paths("switch:lan", place) == "switch:lan"


def test_forwarded_port_is_that_of_the_protocol() -> None:
    requests = [net("none"), net("user,forward=tcp:8080:80,forward=udp:99:80")]

    assert forwarded(requests, 80, "tcp") == 8080
    assert forwarded(requests, 80, "udp") == 99
    with pytest.raises(UsageError, match="no port of the host leads to tcp port 81"):
        forwarded(requests, 81, "tcp")
