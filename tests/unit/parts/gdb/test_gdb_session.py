"""What a client of GDB's protocol asks, and what it is answered."""

from __future__ import annotations

from kvmbox.parts.gdb import packets
from kvmbox.parts.gdb.gdb_session import MOST_WAITING, SIGINT, SIGTRAP, Session, Stop
from kvmbox.parts.gdb.registers import GENERAL
from tests.support.fake_target import FakeTarget

CONTINUE = b"vCont;c"


class Rig:
    """A session without acknowledgements, with a machine that stands still."""

    def __init__(self, *, features: bytes = b"swbreak+;hwbreak+;error-message+") -> None:
        self.target = FakeTarget()
        self.session = Session(self.target)
        self.session.stopped(Stop(0, SIGTRAP))
        self.ask(b"QStartNoAckMode")
        self.ask(b"qSupported:" + features)

    def send(self, data: bytes) -> list[bytes]:
        return self.payloads(self.session.receive(data))

    def payloads(self, data: bytes) -> list[bytes]:
        events = packets.Parser().feed(data)
        return [event.payload for event in events if isinstance(event, packets.Packet)]

    def ask(self, payload: bytes) -> bytes | None:
        """The one answer, None if there is none."""
        found = self.send(packets.encode(payload))
        assert len(found) < 2
        return found[0] if found else None

    def stop(self, stop: Stop) -> list[bytes]:
        return self.payloads(self.session.stopped(stop))


def test_packets_are_acknowledged_until_the_client_wants_none() -> None:
    session = Session(FakeTarget())
    session.stopped(Stop(0, SIGTRAP))
    assert session.receive(packets.encode(b"?")) == b"+" + packets.encode(b"T05thread:1;")
    assert session.receive(b"$?#00") == b"-"
    assert session.receive(b"-") == packets.encode(b"T05thread:1;")
    assert session.receive(packets.encode(b"QStartNoAckMode")) == b"+" + packets.encode(b"OK")
    assert session.receive(packets.encode(b"qC")) == packets.encode(b"QC1")
    assert session.receive(b"$?#00") == b""
    assert session.closed == "the client of --gdb sends damaged packets"


def test_what_is_not_known_is_answered_with_nothing() -> None:
    rig = Rig()
    for payload in (
        b"vMustReplyEmpty",
        b"!",
        b"qSymbol::",
        b"jThreadsInfo",
        b"vAttach;1",
        b"x0,4",
        b"",
    ):
        assert rig.ask(payload) == b""


def test_stop_says_why_in_the_words_that_the_client_knows() -> None:
    rig, old = Rig(), Rig(features=b"multiprocess+")
    for one in (rig, old):
        assert one.ask(CONTINUE) is None
        assert one.target.done[-1] == ("resume", [0, 1], None)
    assert rig.stop(Stop(1, SIGTRAP, "swbreak")) == [b"T05thread:2;swbreak:;"]
    assert old.stop(Stop(1, SIGTRAP, "swbreak")) == [b"T05thread:2;"]
    rig.ask(CONTINUE)
    assert rig.stop(Stop(0, SIGTRAP, "watch", 0x1234)) == [b"T05thread:1;watch:1234;"]


def test_crash_is_told_in_words_before_the_stop() -> None:
    rig = Rig()
    rig.ask(CONTINUE)
    told = rig.stop(Stop(0, 11, text="a triple fault"))
    assert told == [b"O" + b"kvmbox: a triple fault\n".hex().encode(), b"T0bthread:1;"]


def test_stop_that_nobody_waits_for_is_not_told() -> None:
    assert Rig().stop(Stop(0, SIGTRAP)) == []


def test_packets_wait_while_cpus_run_and_ctrl_c_does_not() -> None:
    rig = Rig()
    rig.ask(CONTINUE)
    assert rig.send(packets.encode(b"m0,1") + b"\x03") == []
    assert rig.target.done[-1] == ("interrupt",)
    assert rig.stop(Stop(0, SIGINT)) == [b"T02thread:1;", b"00"]
    rig.send(b"\x03")  # too late: they stand still
    assert rig.target.done.count(("interrupt",)) == 1


def test_client_that_does_not_wait_is_thrown_out() -> None:
    rig = Rig()
    rig.ask(CONTINUE)
    rig.send(packets.encode(b"?") * MOST_WAITING)
    assert rig.session.closed is None
    rig.send(packets.encode(b"?"))
    assert rig.session.closed is not None
    assert rig.stop(Stop(0, SIGTRAP)) == [b"T05thread:1;"]


def test_answers_to_a_flood_are_bounded() -> None:
    rig = Rig()
    rig.target.memory.write(0, bytes(0x4000))
    assert len(rig.session.receive(packets.encode(b"m0,1ff0") * 2000)) < 2 << 20
    assert rig.session.closed is not None
    again = Rig()
    again.ask(b"m0,1ff0")
    assert len(again.session.receive(b"-" * 16000)) < 2 << 20
    assert again.session.closed is not None


def test_too_long_a_packet_ends_the_session() -> None:
    rig = Rig()
    rig.send(b"$" + b"a" * packets.PACKET_SIZE)
    assert rig.session.closed == "the client of --gdb sends a packet that is too long"
    assert rig.ask(b"?") is None


def test_packets_in_a_request_of_a_browser_are_not_obeyed() -> None:
    target = FakeTarget()
    session = Session(target)
    session.stopped(Stop(0, SIGTRAP))
    body = packets.encode(b"k") + packets.encode(b"M1000,1:ff")
    assert session.receive(b"POST / HTTP/1.1\r\nHost: localhost:1234\r\n\r\n" + body) == b""
    assert session.closed == "a browser has connected to --gdb, and is turned away"
    assert not session.has_spoken


def test_registers_are_of_the_cpu_that_was_chosen() -> None:
    rig = Rig()
    assert rig.ask(b"p10") == (0x7C00).to_bytes(8, "little").hex().encode()
    assert rig.ask(b"Hg2") == b"OK"
    assert rig.ask(b"p10") == (0x7C01).to_bytes(8, "little").hex().encode()
    values = rig.ask(b"g")
    assert values is not None
    assert rig.ask(b"G" + values) == b"OK"
    assert rig.target.done[-1] == ("set", 1, 0)
    assert rig.ask(b"P0=2a00000000000000") == b"OK"
    assert rig.target.done[-1] == ("set", 1, GENERAL)
    assert rig.ask(b"Hg3") == b"E.there is no thread 3"
    assert rig.ask(b"pfff") == b"E.kvmbox does not understand this packet"


def test_errors_have_no_words_for_a_client_that_shows_none() -> None:
    assert Rig(features=b"").ask(b"Hg3") == b"E01"


def test_memory_is_read_up_to_what_is_there() -> None:
    rig = Rig()
    rig.target.memory.write(0xFFF8, b"12345678")
    assert rig.ask(b"mfffc,8") == b"5678".hex().encode()
    assert rig.ask(b"m90000,8") == b"E.there is no memory at 0x90000"
    assert rig.ask(b"m0,0") == b""


def test_memory_is_written_in_both_forms_and_by_both_addresses() -> None:
    rig = Rig()
    assert rig.ask(b"M10,2:abcd") == b"OK"
    assert rig.ask(b"Qqemu.PhyMemMode:1") == b"OK"
    assert rig.ask(b"qqemu.PhyMemMode") == b"1"
    assert rig.ask(b"X10,2:#}") == b"OK"
    written = [("write", 0, 0x10, b"\xab\xcd"), ("write", None, 0x10, b"#}")]
    assert rig.target.done == written
    assert rig.ask(b"X10,0:") == b"OK"  # how a client asks whether X is known
    for wrong in (b"M10,2:ab", b"X10,3:ab", b"M10:ab", b"M,:", b"M10,1:xy", b"M-1,1:00"):
        assert rig.ask(wrong) == b"E.kvmbox does not understand this packet"
    assert rig.target.done == written


def test_steps_are_of_one_cpu() -> None:
    for payload, cpu in (
        (b"s", 0),
        (b"S05", 0),
        (b"vCont;s:2;c", 1),
        (b"vCont;c:1;s:2", 1),
        (b"vCont;s", 0),
    ):
        rig = Rig()
        assert rig.ask(payload) is None
        assert rig.target.done[-1] == ("resume", [], cpu)


def test_old_clients_choose_who_goes_on_and_where() -> None:
    rig = Rig()
    rig.ask(b"Hc2")
    assert rig.ask(b"c7d00") is None
    assert rig.target.done[-2:] == [("set", 0, GENERAL), ("resume", [1], None)]
    rig.stop(Stop(0, SIGTRAP))
    assert rig.ask(b"C05") is None
    assert rig.target.done[-1] == ("resume", [0, 1], None)


def test_breakpoints_are_set_or_refused_in_words() -> None:
    rig = Rig()
    assert rig.ask(b"Z0,1000,1;X1,0") == b"OK"
    assert rig.target.done[-1] == ("add", 0, 0, 0x1000)
    assert rig.ask(b"z0,1000,1") == b"OK"
    for _ in range(2):
        assert rig.ask(b"Z2,1000,4") == b"E.no watchpoints"
    assert rig.target.said == ["--gdb: no watchpoints"]  # once
    assert rig.ask(b"Z7,1000,4") == b"E.kvmbox does not understand this packet"


def test_description_comes_in_pieces() -> None:
    rig = Rig()
    text, at = b"", 0
    while True:
        piece = rig.ask(b"qXfer:features:read:target.xml:%x,7f0" % at)
        assert piece is not None
        text, at = text + piece[1:], at + len(piece) - 1
        if piece[:1] == b"l":
            break
    assert text == rig.target.layout.xml
    assert rig.ask(b"qXfer:features:read:other.xml:0,10") == b"E00"
    assert rig.ask(b"qXfer:features:read:target.xml:fffff,10") == b"l"


def test_client_hears_of_threads_and_of_what_runs_here() -> None:
    rig = Rig()
    assert rig.ask(b"qfThreadInfo") == b"m1,2"
    assert rig.ask(b"qsThreadInfo") == b"l"
    assert rig.ask(b"qThreadExtraInfo,2") == b"CPU 1".hex().encode()
    assert rig.ask(b"T2") == b"OK"
    assert rig.ask(b"qAttached") == b"1"
    answer = rig.ask(b"qProcessInfo")
    assert answer is not None
    assert b"x86_64-unknown-none".hex().encode() in answer


def test_monitor_prints_more_than_one_packet_takes() -> None:
    rig = Rig()
    found = rig.send(packets.encode(b"qRcmd," + b"devices".hex().encode()))
    assert found[-1] == b"OK"
    assert bytes.fromhex(b"".join(one[1:] for one in found[:-1]).decode()) == b"COM1\n" * 5000


def test_nothing_is_answered_between_a_reset_and_its_stop() -> None:
    rig = Rig()
    found = rig.send(packets.encode(b"qRcmd," + b"reset".hex().encode()))
    assert found[-1] == b"OK"
    assert rig.target.done[-1] == ("reset",)
    assert rig.ask(b"qC") is None
    assert rig.stop(Stop(0, SIGTRAP)) == [b"QC1"]


def test_client_leaves_or_kills() -> None:
    for payload, answer, done in (
        (b"D", b"OK", "detach"),
        (b"D;1", b"OK", "detach"),
        (b"k", None, "kill"),
        (b"vKill;1", b"OK", "kill"),
    ):
        rig = Rig()
        assert rig.ask(payload) == answer
        assert rig.target.done[-1] == (done,)
        assert rig.session.closed == ""
        assert rig.ask(b"?") is None


def test_end_of_the_run_is_told_to_who_waits() -> None:
    rig = Rig()
    rig.ask(CONTINUE)
    assert rig.payloads(rig.session.ended(31)) == [b"W1f"]
    assert Rig().session.ended(31) == b""
