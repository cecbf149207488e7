"""What every folder may use: errors, addresses, guest memory, outcomes, and light classes.

Nothing here imports another folder of kvmbox. No device, no process and no option of a run belongs here.
"""
