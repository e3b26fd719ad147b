"""Starts the guest: `python3 -I -S -B main.py`, with fd 4 to the gate outside and nothing else."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# What the root was staged with besides the standard library (`PythonSet.folders`).
_PACKAGES = "/usr/lib/python3/dist-packages"
if os.path.isdir(_PACKAGES):
    sys.path.append(_PACKAGES)

import guest  # noqa: E402

guest.main()
