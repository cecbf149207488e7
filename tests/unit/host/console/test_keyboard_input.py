"""The keyboard's input: from the console, and from a program."""

from __future__ import annotations

from kvmbox.contract.names import KEYBOARD
from kvmbox.host.console.keyboard_input import KeyboardPort
from kvmbox.host.console.mouse_events import acted, sequences
from kvmbox.host.console.sent_input import Typed
from kvmbox.host.console.serial_backends import KeyboardSpec
from kvmbox.host.console.us_keyboard import chord, typed


class Typist:
    """A port of which `pending` and `changes` are others' too."""

    def __init__(self) -> None:
        spec = KeyboardSpec(Typed(), Typed())
        self.changes, self.events = spec.keys.pending, spec.mouse.pending
        self.pending = bytearray()
        self.said: list[str] = []
        self.port = KeyboardPort(-1, spec, pending=self.pending, say=self.said.append)

    def taken(self, size: int = 1000) -> bytes:
        offer = self.port.offer(size)
        self.port.accept(len(offer))
        return offer


def test_typed_bytes_become_changes_of_keys() -> None:
    typist = Typist()
    assert (typist.port.name, typist.port.can_send) == (KEYBOARD, False)
    typist.pending += b"ls\n"
    assert typist.port.can_send
    assert typist.taken() == typed("ls\n")
    assert not typist.port.can_send


def test_changes_that_were_not_taken_are_offered_again() -> None:
    typist = Typist()
    typist.pending += b"A"
    assert typist.port.offer(3) == typed("A")[:3]
    typist.port.accept(1)
    assert typist.port.can_send
    assert typist.port.offer(64) == typed("A")[1:]


def test_keys_that_a_program_presses_do_not_mix_with_those_of_the_console() -> None:
    typist = Typist()
    typist.pending += b"A"
    typist.port.offer(64)
    typist.port.accept(2)  # Shift and the key are down
    typist.changes += chord("b")
    typist.pending += b"c"
    assert typist.taken() == typed("A")[2:] + typed("b")
    assert typist.taken() == typed("c")


def test_typed_bytes_wait_untranslated_while_changes_wait() -> None:
    typist = Typist()
    typist.pending += b"a"
    typist.port.offer(1)
    typist.pending += b"b" * 100
    typist.port.offer(1)
    assert (len(typist.changes), len(typist.pending)) == (2, 100)


def test_what_no_key_types_is_dropped_and_said_once() -> None:
    typist = Typist()
    for text in ("é", "ü", "x"):
        typist.pending += text.encode()
        typist.port.offer(64)
    assert typist.taken() == typed("x")
    assert typist.said == ["the keyboard has no key for some of what is typed: that is dropped"]


def test_port_that_waits_for_room_sends_nothing() -> None:
    typist = Typist()
    typist.pending += b"a"
    typist.port.waiting_for_room = True
    assert not typist.port.can_send


def test_sequences_of_the_mouse_are_no_keys() -> None:
    typist = Typist()
    done = acted("move 300 -7, click right")
    typist.pending += b"a" + sequences(done) + b"b"
    assert typist.taken() == typed("ab")
    assert typist.events == done
    assert typist.said == []


def test_sequence_of_the_mouse_may_come_in_pieces() -> None:
    typist = Typist()
    done = acted("move -1 -2, press back, wheel -3")
    for sequence in sequences(done).split(b"\x1b")[1:]:
        typist.pending += b"\x1b["  # an escape that ends a piece is the key
        for byte in sequence[1:]:
            typist.pending.append(byte)
            assert typist.taken() == b""
    assert typist.events == done


def test_sequence_that_is_no_event_is_dropped() -> None:
    typist = Typist()
    typist.pending += b"\x1b[=256;0;0;0m\x1b[=0;65536;0;0m\x1b[=0;0;0;256ma"
    assert typist.taken() == typed("a")
    assert typist.events == b""
    assert len(typist.said) == 1
