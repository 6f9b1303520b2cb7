"""The table [limits]: one table in the file, and here one class for each room that obeys its limits."""

from __future__ import annotations

from postroad.check.client import ClientOptions
from postroad.check.policy import PolicyOptions
from postroad.config.field import Section, of
from postroad.config.values import (
    Octets,
    Seconds,
)
from postroad.protocol.limits import ProtocolLimits, StrayLineEnds
from postroad.receive.options import (
    ReceiveOptions,
)
from postroad.route.alias_file import AliasLimits


class ProtocolKeys(Section):
    """Of the protocol machine."""

    command_line_max: Octets = of(ProtocolLimits.command_line_max, source="RFC 5321 §4.5.3.1.4")
    auth_line_max: Octets = of(ProtocolLimits.auth_line_max, source="RFC 4954 §4.5")
    text_line_max: Octets = of(ProtocolLimits.text_line_max, source="RFC 5321 §4.5.3.1.6")
    size_max: Octets = of(ProtocolLimits.size_max, source="RFC 5321 §4.5.3.1.7")
    header_size_max: Octets = of(ProtocolLimits.header_size_max)
    header_fields_max: int = of(ProtocolLimits.header_fields_max, unit="fields")
    recipients_max: int = of(ProtocolLimits.recipients_max, unit="recipients", source="RFC 5321 §4.5.3.1.8")
    transactions_max: int = of(ProtocolLimits.transactions_max, unit="transactions", source="RFC 9422")
    recipient_domains_max: int = of(ProtocolLimits.recipient_domains_max, unit="domains", source="RFC 9422")
    path_max: Octets = of(ProtocolLimits.path_max, source="RFC 5321 §4.5.3.1.3")
    errors_max: int = of(ProtocolLimits.errors_max, unit="errors")
    idle_commands_max: int = of(ProtocolLimits.idle_commands_max, unit="commands")
    commands_max: int = of(ProtocolLimits.commands_max, unit="commands")
    swallow_max: Octets = of(ProtocolLimits.swallow_max)
    piece_size: Octets = of(ProtocolLimits.piece_size)
    stray_line_ends: StrayLineEnds = of(ProtocolLimits.stray_line_ends, source="RFC 5321 §2.3.8", word=True)
    nul_refused: bool = of(ProtocolLimits.nul_refused, source="RFC 5322 §4")
    pipelining_strict: bool = of(ProtocolLimits.pipelining_strict, source="RFC 2920 §3.1")


class RuleKeys(Section):
    """Of the rules."""

    hops_max: int = of(PolicyOptions.hops_max, unit="fields", source="RFC 5321 §6.3")


class AliasKeys(Section):
    """Of aliases."""

    alias_depth_max: int = of(AliasLimits.alias_depth_max, unit="aliases")
    alias_recipients_max: int = of(AliasLimits.alias_recipients_max, unit="mailboxes")
    message_recipients_max: int = of(AliasLimits.message_recipients_max, unit="mailboxes")


class SessionKeys(Section):
    """Of sessions."""

    command_s: Seconds = of(ReceiveOptions.command_s, source="RFC 5321 §4.5.3.2.7")
    data_block_s: Seconds = of(ReceiveOptions.data_block_s, source="RFC 5321 §4.5.3.2.5")
    message_s: Seconds = of(ReceiveOptions.message_s)
    refused_content_s: Seconds = of(ReceiveOptions.refused_content_s, source="RFC 5321 §4.5.3.2.7")
    session_s: Seconds = of(ReceiveOptions.session_s)
    handshake_s: Seconds = of(ReceiveOptions.handshake_s)
    close_s: Seconds = of(ReceiveOptions.close_s)
    proxy_s: Seconds = of(ReceiveOptions.proxy_s)
    proxy_header_max: Octets = of(ReceiveOptions.proxy_header_max)
    memory_content_max: Octets = of(ReceiveOptions.memory_content_max)
    input_max: Octets = of(ReceiveOptions.input_max)
    auth_failures_max: int = of(ReceiveOptions.auth_failures_max, unit="tries")
    refusals_max: int = of(ReceiveOptions.refusals_max, unit="commands")
    content_memory_max: Octets = of(ReceiveOptions.content_memory_max)
    files_reserved: int = of(ReceiveOptions.files_reserved, unit="descriptors")
    unknown_recipients_max: int = of(ReceiveOptions.unknown_recipients_max, unit="recipients")


class ClientKeys(Section):
    """Of clients, counted for the whole node."""

    sessions_max: int = of(ClientOptions.sessions_max, unit="sessions")
    sessions_per_client_max: int = of(ClientOptions.sessions_per_client_max, unit="sessions")
    sessions_per_network_max: int = of(ClientOptions.sessions_per_network_max, unit="sessions")
    network_prefix_ipv4: int = of(ClientOptions.network_prefix_ipv4, unit="bits")
    network_prefix_ipv6: int = of(ClientOptions.network_prefix_ipv6, unit="bits", source="RFC 6177")
    rate_s: Seconds = of(ClientOptions.rate_s)
    connection_rate_max: int = of(ClientOptions.connection_rate_max, unit="connections")
    connection_rate_network_max: int = of(ClientOptions.connection_rate_network_max, unit="connections")
    message_rate_max: int = of(ClientOptions.message_rate_max, unit="commands")
    message_rate_network_max: int = of(ClientOptions.message_rate_network_max, unit="commands")
    recipient_rate_max: int = of(ClientOptions.recipient_rate_max, unit="commands")
    recipient_rate_network_max: int = of(ClientOptions.recipient_rate_network_max, unit="commands")


# pydantic lists the keys of the last base first.
class LimitsSection(ClientKeys, SessionKeys, AliasKeys, RuleKeys, ProtocolKeys):
    """How much one session, one client and one message may use. No limit can be set below what an RFC demands."""
