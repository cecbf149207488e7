"""Device faults for the tests of drivers: `kvmbox run --inject`. Loaded by runs that inject faults alone.

`faults` is the table of what can go wrong, `spec` reads what a person asks for, `chance` decides by counting,
`state` counts for one device, `line`, `device`, `uart` and `rtc` stand between a device and the guest, and
`injection` puts them there.
"""
