"""`kvmbox bench`: every sandbox × seccomp × ipc choice on this host, measured in one interleaving.

`measuring_plan` says what is measured, `runner` in which order, `measurements` how; `results` keeps the
samples. `statistics` and `analysis` make numbers of samples; `result_tables`, `answer`, `compare` and `plot`
make text and pictures.
"""
