"""One self-signed certificate for all servers of a test run."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """Certificate and key for ``localhost``."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    if not key.exists():
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
            + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
            + ["-out", str(certificate), "-keyout", str(key)],
            check=True,
            capture_output=True,
        )
    return certificate, key
