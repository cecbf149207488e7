"""GDB's remote serial protocol: packets, descriptions of registers, breakpoints, commands of a client.

The package is loaded only by a run with --gdb. Nothing in here knows a virtual machine: `debugger`
gives the package CPUs, memory and a socket.
"""
