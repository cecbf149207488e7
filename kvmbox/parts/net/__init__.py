"""--net: network interfaces of the guest, and the wires of the host behind them.

Wires, hubs and captures, and the processes beside. The network cards are models; who gets which wire is
decided by the option.
"""
