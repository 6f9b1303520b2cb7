"""A private OpenLDAP server on loopback ports, with TLS if it is given a certificate."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.peers.harness import need, ports
from tests.peers.harness.process import Program, listens

_CONFIG = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
pidfile {directory}/pid
modulepath /usr/lib/ldap
moduleload back_mdb
{tls}
disallow bind_anon
require authc
database mdb
suffix "dc=example,dc=org"
rootdn "cn=admin,dc=example,dc=org"
rootpw secret
directory {directory}/data
"""


class OpenLdap:
    """`certificate`, `key`: for TLS on `tls_port`, and STARTTLS. `entries`: LDIF that is loaded before the start."""

    def __init__(self, directory: Path, entries: str, certificate: Path, key: Path) -> None:
        need.root()
        (directory / "data").mkdir(parents=True)
        self.port, self.tls_port = ports.port(), ports.port()
        config = directory / "slapd.conf"
        tls = f"TLSCertificateFile {certificate}\nTLSCertificateKeyFile {key}"
        config.write_text(_CONFIG.format(directory=directory, tls=tls))
        (directory / "entries").write_text(entries)
        program = need.program("slapd")
        subprocess.run([need.program("slapadd"), "-f", str(config), "-l", str(directory / "entries")], check=True,
                       capture_output=True, timeout=60)  # fmt: skip
        places = f"ldap://127.0.0.1:{self.port} ldaps://127.0.0.1:{self.tls_port}"
        self._program = Program([program, "-f", str(config), "-h", places, "-d", "0"], directory / "log")

    def start(self) -> None:
        self._program.start()
        self._program.ready(
            lambda: listens("127.0.0.1", self.port) and listens("127.0.0.1", self.tls_port), "slapd listens"
        )

    def stop(self) -> None:
        self._program.stop()

    def __enter__(self) -> OpenLdap:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
