"""MTA-STS: how the policies of other domains are fetched and kept (docs/mta-sts.md)."""

from __future__ import annotations

from postroad.config.field import Section, of
from postroad.config.values import File, Octets, Seconds
from postroad.trust.sts_fetch import StsOptions


class MtaStsSection(Section):
    """Policies by which other domains say that their mail servers have TLS with valid certificates (MTA-STS). A policy
    is fetched by HTTPS when mail is sent, kept on the disk, and renewed about once a day."""

    testing: bool = of(StsOptions.testing)
    time_s: Seconds = of(StsOptions.time_s, source="RFC 8461 §3.3")
    ca_file: File | None = of(StsOptions.ca_file, default=None, example='"tls/roots.pem"')
    port: int = of(StsOptions.port, unit="port")
    entries_max: int = of(StsOptions.entries_max, unit="domains")
    size_max: Octets = of(StsOptions.size_max)
