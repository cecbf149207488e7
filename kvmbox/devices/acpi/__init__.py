"""ACPI power management, and the ports with which other machines power off.

`model` has the registers, `board` their ports, `power_off_ports` what is no ACPI. The tables that describe
them to a guest are in `firmware`.
"""
