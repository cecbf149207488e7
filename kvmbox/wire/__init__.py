"""The data between the VMM and the sandbox: frames, layouts, effects. Pure.

Both sides import this: no I/O, no clock, and nothing of `remote` or `jail`. What a model asks for is
`contract`; how it is packed is here.
"""
