"""Guest time, the deadlines of devices, time-outs, and a host that is late."""
