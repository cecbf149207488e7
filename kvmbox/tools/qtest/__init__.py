"""A server of QEMU's qtest protocol on the board of `kvmbox run`, without a CPU and without /dev/kvm.

    protocol   a line → a request, or what is wrong with it; answers → lines. Pure
    machine    the board, its memory, and a clock that moves only by command
    sandbox    where the models run: jailed processes as in a run, or this process
    session    a request → accesses, steps of the clock, interrupt messages, the answer
    server     bytes from a client → lines → answers; one loop for one or more connections
    qmp        the second protocol that QEMU's test programs speak: greeting, capabilities, quit

docs/qtest.md has the protocol as it is spoken here.
"""
