"""kvmbox: boot small x86 guests on /dev/kvm, every legacy device in its own sandboxed process.

Importing this package costs nothing: the spawner of the device processes starts from a bare
interpreter and must not load what it does not need.
"""

__version__ = "0.1.0"
