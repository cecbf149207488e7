"""The compiled hot path of the VMM, and the choice: it is optional, and kvmbox is complete without it.

`vmm` has KVM_RUN, the exit's route, the request and a reply that changes nothing else, without the GIL. Its
other half is `serving`, the serving loop of a device process. Both do what happens all the time; for
everything else they call the classes in pure Python, which work without them.

`tools/build_accelerator.py` compiles the modules, in `make` and when a wheel is built. They are used if they
are there, unless the environment of the VMM says `KVMBOX_PURE=1`. Device processes have no environment: the
VMM tells the spawner which entry they run.
"""
