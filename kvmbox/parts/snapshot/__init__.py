"""Snapshots: a whole machine in a file, and machines that start from it.

- `description`, `strict_json`, `file_layout`: what is in the file, and the checks of every byte of it. Pure.
- `vcpu_state`: one vCPU as bytes.
- `ram`: guest memory in the file, where zeros are holes.
- `file`, `destination`: reading, and writing that replaces the file at once or not at all.
- `capture`, `restore`: from a machine to the file, and back.

docs/snapshots.md has the format and the rules. A run that neither takes nor uses a snapshot loads none of it.
"""
