"""One machine: configuration, builder, vCPU thread, main loop, outcome and statistics."""
