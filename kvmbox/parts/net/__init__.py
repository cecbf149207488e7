"""--net: network interfaces of the guest, and the wires of the host behind them."""
