"""A VMM that has two spawners, as a program: one that it has started, and one that a template has cloned.

Usage: lent.py DIRECTORY-OF-KVMBOX BPF-IN-HEX. Prints one line of JSON: of each, the layers of a device
process, and what is missing. There is no second one where the template makes none.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
from typing import Any


def main() -> None:
    sys.path.append(sys.argv[1])
    from kvmbox.jail import descriptor_passing, layers
    from kvmbox.remote.process.spawner_client import SpawnerClient, device_entry
    from kvmbox.tools.warm import frames
    from kvmbox.tools.warm.client import TemplateClient
    from kvmbox.tools.warm.lent_spawner import LentSpawner

    def told(client: SpawnerClient) -> dict[str, Any]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = client.spawn("uart", [theirs.detach()], bytes.fromhex(sys.argv[2]))
        client.wait_ready(process)
        seen = os.path.exists(f"/proc/{client.pid}")
        ours.close()
        client.close()
        return {"layers": layers.names(process.layers), "missing": sorted(client.missing), "seen": seen}

    template = TemplateClient.start_spawners()
    poller = select.poll()
    poller.register(template.fileno(), select.POLLIN)
    poller.poll()
    news = template.take_news()
    assert news is not None
    assert news.kind == frames.READY, news
    report = {"own": told(SpawnerClient.start())}
    if news.number:
        (control, its_control), (lifeline, its_lifeline) = (
            descriptor_passing.socket_pair(),
            descriptor_passing.socket_pair(),
        )
        template.order(os.getpid(), [its_control, its_lifeline, os.pidfd_open(os.getpid())])
        os.close(its_control)
        os.close(its_lifeline)
        report["lent"] = told(SpawnerClient(LentSpawner(lifeline), control, (device_entry(),)))
    template.close()
    print(json.dumps(report), flush=True)


main()
