"""--on-device-crash restart: a lost device process is replaced, unseen by the guest."""
