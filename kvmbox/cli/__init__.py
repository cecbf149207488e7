"""The commands: the only place that prints and exits.

A command asks, prints and exits; what it does is imported from any other folder, when it is needed. Nothing
imports `cli`. A command of several files has a folder, and its module `command`.
"""

import resource
import sys

# Python may keep bytecode that a limit has cut, and could never load it again.
if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
    sys.dont_write_bytecode = True
