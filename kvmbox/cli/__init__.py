"""The commands: the only place that prints and exits."""

import resource
import sys

# Python may keep bytecode that a limit has cut, and could never load it again.
if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
    sys.dont_write_bytecode = True
