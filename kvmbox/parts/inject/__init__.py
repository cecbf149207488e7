"""Device faults for the tests of drivers: `kvmbox run --inject`. Loaded by runs that inject faults alone.

`fault_table` is the table of what can go wrong, `spec` reads what a person asks for, `chance` decides by
counting, `device_faults` counts for one device, `line`, `device`, `uart_faults` and `rtc_faults` stand
between a device and the guest, and `injection` puts them there.
"""
