"""Ray on this machine, however busy that is."""

import os

PATIENT = {"RAY_agent_register_timeout_ms": "600000", "RAY_worker_register_timeout_seconds": "600"}
"""What Ray's own processes wait for each other."""


def be_patient():
    """Goes before Ray is begun in this process."""
    for name, value in PATIENT.items():
        os.environ.setdefault(name, value)
