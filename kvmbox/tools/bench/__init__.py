"""`kvmbox bench`: every sandbox × seccomp × ipc choice on this host, measured in one interleaving.

`plan` says what is measured, `runner` in which order, `jobs` how; `results` keeps the samples. `statistics`
and `analysis` make numbers of samples; `report`, `answer`, `compare` and `plot` make text and pictures.
"""
