"""docs/recipes/behind-a-provider.md, with a Postfix as the provider: TLS, and Dovecot checks the password."""

from __future__ import annotations

from pathlib import Path

from tests.peers.harness import need, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.dovecot import Dovecot
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.process import until
from tests.peers.harness.recipe import Machine, Page


def test_the_page_is_true(place: Path, authority: Authority) -> None:
    need.program("swaks")
    chain, key = authority.certificate("provider.test", "localhost", "127.0.0.1")
    with Dovecot(place / "dovecot", users=["ada@example.org"]) as dovecot:
        provider = Postfix(place / "provider", settings={
            "default_transport": "discard:", "smtpd_tls_security_level": "encrypt",
            "smtpd_tls_chain_files": f"{key}, {chain}", "smtpd_sasl_auth_enable": "yes", "smtpd_sasl_type": "dovecot",
            "smtpd_sasl_path": str(dovecot.auth_path), "mynetworks": "192.0.2.1",
            "smtpd_recipient_restrictions": "permit_sasl_authenticated, reject",
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
        })  # fmt: skip
        port = ports.port()
        machine = Machine(Page("behind-a-provider"), place / "machine", {
            "/etc/postroad/provider": str(place / "machine/etc/postroad/provider"),
            "/var/lib/postroad": str(place / "machine/state"),
            "/var/mail": str(place / "machine/mail"),
            'user = "postroad"\n': "",
            "-g postroad ": "",
            '"smtp.provider.example"': '"127.0.0.1"',
            "port = 25\n": f"port = {port}\n",
            "--port 25": f"--port {port}",
            "port = 587\n": f"port = {provider.port}\n",
            "the password": Dovecot.password,
        }, environment={"SSL_CERT_FILE": str(authority.file)})
        with provider, machine:
            machine.play("Commands")
            send, trace, send_to_root, trace_of_root = machine.page.commands("How to see that it works")
            machine.run(send)
            told = machine.until(trace, "relayed")
            assert "250 2.0.0 Ok: queued as" in told
            until(lambda: "sasl_username=ada@example.org" in provider.log(), "the account in the log of the provider")
            machine.run(send_to_root)
            assert "<ada@example.org>" in machine.until(trace_of_root, "relayed")

            password = machine.path("/etc/postroad/provider.password")
            password.write_text("wrong\n")
            machine.run("systemctl stop postroad")  # no connection that has logged in is kept
            machine.run("systemctl start postroad")
            machine.run(send.replace("carol@", "dave@"))
            told = machine.until("postroad trace dave@example.net", "535")
            assert "deferred" in told and "relayed" not in told
            machine.play("What can go wrong")
            assert "attempt 2" in machine.until("postroad trace dave@example.net", "relayed")
