"""What a run puts together: boot source, board, devices, virtual machine; reset and suspension."""
