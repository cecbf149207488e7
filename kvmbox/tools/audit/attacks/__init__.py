"""The attacks, by what they are after. All of it runs in device processes: lean, raw system calls only.

An attack is a public function of one of these modules, and has its name with dashes (`payload.ATTACKS`). It
is given what audit tells it; it returns its evidence, or None where there is none to bring, or raises
`Stopped` at the first system call that fails. It calls nothing but the system calls that it is about: under a
filter the first forbidden one is the last.
"""
