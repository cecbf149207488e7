"""This process: signals, threads, children, the CPU that it is placed on."""
