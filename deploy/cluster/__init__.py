"""A real Nomad, Consul and Docker on this machine, for `make cluster` and for `tests/cluster`.

`cluster.py` composes the parts; each other module owns one of them and cleans up after itself. Nothing here
knows pytest, and nothing here knows what the job does: the production job file runs as it is.
"""
