"""A VMM as far as the sandbox is concerned, as a program: for tests that kill it, or run it as another
user or under another Python.

Usage: vmm.py DIRECTORY-OF-KVMBOX BPF-IN-HEX PHASE. Takes itself to the phase ('started': there is a spawner,
'asked': it was asked for device processes, 'ready': they serve, 'confined': so is this program), prints one
line of JSON, and waits for the end of stdin. Then it makes a forbidden call, closes everything, and prints
another line.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
from pathlib import Path

DEVICES = 3


def main() -> None:
    sys.path.append(sys.argv[1])
    import payload  # it cannot be read any more once this is confined

    from kvmbox.jail import layers
    from kvmbox.remote.process.spawner_client import SpawnerClient

    if "scoped" in sys.argv:
        from kvmbox.sandbox import scope

        scope.OWN.take()
    bpf, phase = bytes.fromhex(sys.argv[2]), sys.argv[3]
    client = SpawnerClient.start(
        entries=["payload:echo", "payload:call"], payload_directory=str(Path(__file__).parent)
    )
    channels, processes = [], []
    if phase != "started":
        for index in range(DEVICES):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            entry = "payload:call" if index == 0 else "payload:echo"
            processes.append(client.spawn(f"device{index}", [theirs.detach()], bpf, entry=entry))
            channels.append(ours)
    if phase in ("ready", "confined"):
        for process in processes:
            client.wait_ready(process)
        for channel in channels[1:]:
            channel.send(b"ping")
            assert channel.recv(16) == b"ping"
    if phase == "confined":
        from kvmbox.sandbox import vmm

        vmm.confine_main(keep=client.capabilities_needed(), spawner_pidfd=client.process.pin())
    report = {
        "spawner": client.pid,
        "devices": [process.pid for process in processes],
        "layers": [layers.names(process.layers) for process in processes],
        "missing": client.missing,
        "uid": os.getuid(),
        "version": list(sys.version_info[:2]),
    }
    print(json.dumps(report), flush=True)
    sys.stdin.read()

    # A forbidden call is named and killed: openat, number 257.
    channels[0].send(payload.CALL.pack(257, 0, 0, 0, 0, 0, 0))
    poller = select.poll()
    assert processes[0].listener
    poller.register(processes[0].listener, select.POLLIN)
    poller.poll(10_000)
    call = processes[0].take_forbidden_call()
    for channel in channels:
        channel.close()
    deaths = select.poll()
    deaths.register(client, select.POLLIN)
    while any(process.wait_status is None for process in processes):
        deaths.poll(10_000)
        client.poll_deaths()
    client.close()
    statuses = [process.wait_status for process in processes]
    print(json.dumps({"forbidden": call.number if call else None, "statuses": statuses}), flush=True)


main()
