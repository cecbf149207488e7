"""What a run puts together: boot source, board, devices, virtual machine; reset and suspension.

From a configuration to threads that may start. Nothing here waits for the guest: that is `run.loop`.
"""
