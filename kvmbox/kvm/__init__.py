"""ctypes over /dev/kvm: a small library of its own, knows nothing of devices."""
