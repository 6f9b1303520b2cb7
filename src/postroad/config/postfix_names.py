"""What the main parameters of Postfix are called here, for whoever writes one of them into the configuration.

The left side is the name in Postfix's main.cf (postconf(5)); the right side is the advice that `postroad check` gives
instead of a guess by similar letters. A parameter that needs no setting here says so.
"""

from __future__ import annotations

from typing import Final

_OURS: Final[dict[str, str]] = {
    "myhostname": "hostname",
    "smtpd_banner": "hostname",
    "smtp_helo_name": "hello under [outbound], or of a [[next_hop]]",
    "queue_directory": "state_dir",
    "data_directory": "state_dir",
    "mail_owner": "user",
    "setgid_group": "group",
    "mynetworks": 'trusted_networks of a [[listener]] with role = "relay"',
    "inet_interfaces": "address of a [[listener]]",
    "inet_protocols": "address of a [[listener]], and for sending ipv4 and ipv6 under [dns]",
    "mydestination": "a [[domain]] for each domain",
    "virtual_mailbox_domains": "a [[domain]] for each domain, or one with domain_maps for many",
    "virtual_alias_domains": 'a [[domain]] with deliver = "aliases"',
    "virtual_mailbox_base": "path_base of a [[domain]]",
    "virtual_mailbox_maps": "recipient_maps or path_maps of a [[domain]]",
    "virtual_transport": "deliver of a [[domain]]",
    "local_recipient_maps": 'recipient_maps of a [[domain]], with a [[map]] of the kind "users"',
    "mailbox_transport": "deliver of a [[domain]]",
    "local_transport": "deliver of a [[domain]]",
    "home_mailbox": 'path and user = "{local_part}" of a [[domain]]',
    "mail_spool_directory": 'deliver = "mbox", path and user of a [[domain]]',
    "mailbox_size_limit": "quota_size of a [[domain]]",
    "virtual_mailbox_limit": "quota_size of a [[domain]]",
    "virtual_uid_maps": "user of a [[domain]]",
    "mailbox_delivery_lock": "dotlock of [mbox]",
    "stale_lock_time": "stale_lock_s of [mbox]",
    "mailbox_command": 'deliver = "program" and command of a [[domain]]',
    "relayhost": 'a [[next_hop]] with domain = "*" and host',
    "smtp_generic_maps": "generic_maps of a [[next_hop]], with a [[map]]",
    "smtp_header_checks": "remove_fields, replace_fields and add_fields of a [[next_hop]]",
    "transport_maps": "transport_maps under [routing], with a [[map]]",
    "sender_dependent_relayhost_maps": "a [[next_hop]] with senders",
    "smtp_sender_dependent_authentication": "username and password_file of a [[next_hop]] with senders",
    **{
        name: f"{name} under [rewrite]"
        for name in (
            "canonical_maps", "canonical_classes", "sender_canonical_maps", "sender_canonical_classes",
            "recipient_canonical_maps", "recipient_canonical_classes", "masquerade_domains", "masquerade_exceptions",
            "masquerade_classes", "relocated_maps", "always_bcc", "sender_bcc_maps", "recipient_bcc_maps",
        )
    },
    "header_checks": "remove_fields, replace_fields and add_fields of a [[listener]]",
    "local_header_rewrite_clients": "complete_clients of a [[listener]], and header_clients under [rewrite]",
    "remote_header_rewrite_domain": 'complete_others of a [[listener]], and header_clients = "all" under [rewrite]',
    "append_dot_mydomain": "complete_hosts of a [[listener]]",
    "append_at_myorigin": "complete_clients of a [[listener]]",
    "myorigin": "domain under [sendmail], and complete_domain of a [[listener]]",
    "reject_unverified_recipient": "verify of a [[relay.domain]]",
    "address_verify_sender": "sender under [verify]",
    "address_verify_positive_expire_time": "found_s under [verify]",
    "address_verify_positive_refresh_time": "found_refresh_s under [verify]",
    "address_verify_negative_expire_time": "missing_s under [verify]",
    "address_verify_negative_refresh_time": "missing_refresh_s under [verify]",
    "relay_domains": "domains under [relay], or domain_maps of a [[relay.domain]]",
    "relay_recipient_maps": "recipient_maps of a [[relay.domain]], with a [[map]]",
    "alias_database": "aliases",
    "allow_mail_to_commands": "programs under [alias_targets]",
    "allow_mail_to_files": "files under [alias_targets]",
    "default_privs": "user under [alias_targets]",
    "owner_request_special": "owners under [alias_targets]",
    "command_time_limit": "time_s under [program]",
    "command_execution_directory": "directory under [program]",
    "virtual_alias_maps": "alias_maps",
    "recipient_delimiter": "detail_delimiter under [routing]",
    "propagate_unmatched_extensions": "extensions_kept under [routing], and propagate_extensions under [rewrite]",
    "message_size_limit": "size_max under [limits]",
    "header_size_limit": "header_size_max under [limits]",
    "smtpd_recipient_limit": "recipients_max under [limits]",
    "smtpd_client_connection_count_limit": "sessions_per_client_max under [limits]",
    "smtpd_client_connection_rate_limit": "connection_rate_max under [limits]",
    "smtpd_client_message_rate_limit": "message_rate_max under [limits]",
    "smtpd_client_recipient_rate_limit": "recipient_rate_max under [limits]",
    "smtpd_timeout": "command_s under [limits]",
    "smtpd_error_limit": "errors_max under [limits]",
    "smtpd_hard_error_limit": "errors_max under [limits]",
    "smtpd_soft_error_limit": "errors_max under [limits]",
    "hopcount_limit": "hops_max under [limits]",
    "smtpd_forbid_bare_newline": "stray_line_ends under [limits]",
    "disable_vrfy_command": "vrfy of a [[listener]]",
    "smtpd_tls_cert_file": "certificate under [tls]",
    "smtpd_tls_key_file": "key under [tls]",
    "smtpd_tls_chain_files": "certificate and key under [tls]",
    "smtpd_tls_security_level": "tls of a [[listener]]",
    "smtpd_tls_wrappermode": 'tls = "implicit" of a [[listener]]',
    "smtpd_tls_auth_only": "auth_without_tls of a [[listener]]",
    "smtpd_tls_CAfile": "client_ca_file under [tls]",
    "smtpd_tls_ask_ccert": "client_certificates under [tls]",
    "smtp_tls_security_level": "tls under [routing] or of a [[next_hop]]",
    "smtp_tls_policy_maps": "tls_policy_maps under [routing], with a [[map]], or tls of a [[next_hop]]",
    "smtp_tls_mandatory_protocols": "minimum under [outbound.tls]",
    "smtp_tls_protocols": "opportunistic_minimum under [outbound.tls]",
    "smtp_tls_mandatory_ciphers": "ciphers under [outbound.tls]",
    "smtp_tls_ciphers": "opportunistic_ciphers under [outbound.tls]",
    "smtp_tls_fingerprint_cert_match": "tls_fingerprints of a [[next_hop]]",
    "smtp_tls_secure_cert_match": "tls_names of a [[next_hop]]",
    "smtp_tls_verify_cert_match": "tls_names of a [[next_hop]]",
    "smtp_dns_support_level": "validating under [dns]",
    "smtp_tls_CAfile": "ca_file under [outbound.tls]",
    "smtp_tls_cert_file": "certificate under [outbound.tls]",
    "smtp_tls_key_file": "key under [outbound.tls]",
    "smtpd_sasl_auth_enable": "auth of a [[listener]]",
    "smtpd_sasl_type": "users, dovecot or function under [auth]",
    "smtpd_sasl_path": "dovecot under [auth]",
    "smtp_sasl_auth_enable": "username and password_file of a [[next_hop]]",
    "smtp_sasl_password_maps": "username and password_file of a [[next_hop]]",
    "smtpd_sender_login_maps": "sender_maps under [auth], with a [[map]]",
    "smtpd_upstream_proxy_protocol": "proxy of a [[listener]]",
    "smtpd_authorized_xclient_hosts": "xclient_networks of a [[listener]]",
    "smtpd_authorized_xforward_hosts": "xforward_networks of a [[listener]]",
    "default_process_limit": "workers",
    "maximal_queue_lifetime": "lifetime_s under [queue], or of a [[next_hop]] or [[domain]]",
    "bounce_queue_lifetime": "lifetime_dsn_s under [queue]",
    "minimal_backoff_time": "retry_first_s under [queue]",
    "maximal_backoff_time": "retry_max_s under [queue]",
    "delay_warning_time": "delay_notice_s under [queue]",
    "lmtp_destination_concurrency_limit": "connections_max of a [[domain]]",
    "lmtp_destination_recipient_limit": "recipients_max of a [[domain]]",
    "default_destination_concurrency_limit": "connections_max of a [[pace]]",
    "smtp_bind_address": "source_ipv4 under [outbound], or of a [[next_hop]]",
    "smtp_bind_address6": "source_ipv6 under [outbound], or of a [[next_hop]]",
    "smtp_fallback_relay": "fallback under [routing], or of a [[next_hop]]",
    "notify_classes": "postmaster",
    "2bounce_notice_recipient": "postmaster",
    "maillog_file": "path under [log]",
    "policyd-spf_time_limit": "waiting_max_s under [checks]",
    "reject_unknown_client_hostname": 'iprev = "enforce" of a [[listener]]',
    "smtpd_authorized_verp_clients": "xverp under [extensions]",
    "authorized_verp_clients": "xverp under [extensions]",
}

_SOURCE: Final = 'In Postroad it is kind = "text" and the text file that postmap reads, not its .db file'

_NEEDLESS: Final[dict[str, str]] = {
    "compatibility_level": "Remove it: Postroad has no compatibility levels",
    "biff": "Remove it: Postroad does not notify users of new mail",
    "readme_directory": "Remove it",
    "mydomain": "Remove it, and write the domain where it is needed",
    "smtpd_helo_required": "Remove it: EHLO or HELO is always required",
    "strict_rfc821_envelopes": "Remove it: the role of the listener decides which addresses are accepted",
}

_ORDER: Final = "Postroad has no lists of restrictions: the role of a [[listener]] sets the rules and their order"
_FILTERS: Final = (
    "Postroad has no milters. In the place of opendkim and opendmarc stand dkim and dmarc of a [[listener]] "
    "(docs/checks.md); for others, a filter that speaks SMTP works (docs/proxies.md)"
)
_NONE: Final[dict[str, str]] = {
    **dict.fromkeys(("smtpd_milters", "non_smtpd_milters", "milter_default_action", "milter_protocol"), _FILTERS),
    "content_filter": "In Postroad a [[next_hop]] leads the mail to a filter (docs/proxies.md)",
    **dict.fromkeys(
        (
            "smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions",
            "smtpd_recipient_restrictions", "smtpd_relay_restrictions", "smtpd_data_restrictions",
            "smtpd_end_of_data_restrictions", "smtpd_etrn_restrictions", "smtpd_restriction_classes",
        ),
        _ORDER,
    ),
    **dict.fromkeys(
        ("body_checks", "mime_header_checks", "nested_header_checks", "smtp_body_checks"),
        "Postroad has no checks of bodies: an inspector can look at them (docs/inspectors.md)",
    ),
    "smtpd_sasl_security_options": "In Postroad it is mechanisms under [auth]",
}
_TABLES: Final[dict[str, str]] = {
    **dict.fromkeys(("hosts", "dbname"), "In Postroad it is a part of url: mysql://user@host:port/database"),
    **dict.fromkeys(
        ("server_host", "server_port", "search_base", "scope", "result_attribute"),
        "In Postroad it is a part of url: ldap://host:port/base?attribute?scope",
    ),
    "query_filter": "In Postroad it is query",
    "select_field": "In Postroad it is query",
    "where_field": "In Postroad it is query",
    "bind_dn": "In Postroad it is user",
    **dict.fromkeys(("bind_pw", "password"), "In Postroad it is password_file, with the password in its first line"),
    "bind": "Remove it: the node logs in if user is set",
    "version": "Remove it",
    "start_tls": "In Postroad it is starttls",
    "tls_ca_cert_file": "In Postroad it is ca_file",
    "dbpath": "In Postroad it is file",
    "result_format": "Postroad has none: let the query make the value",
}

_KINDS: Final[dict[str, str]] = {
    **dict.fromkeys(("hash", "btree", "dbm", "sdbm", "texthash"), _SOURCE),
    "unix": 'In Postroad the users of this machine are kind = "users"',
    "pgsql": 'In Postroad it is kind = "postgresql"',
    "unionmap": 'In Postroad it is kind = "union"',
    "randmap": "Postroad has none: several servers with weights stand in hosts of a [[next_hop]]",
    "pipemap": "Postroad has none: a map that leads to another one can be a function, kind = \"python\"",
    "proxy": "Write the kind of the map behind the proxy: each worker keeps connections open by itself",
    "memcache": "Postroad has none, and keeps answers in memory itself: write the kind of the map behind it",
    "environ": "Postroad has none: write the values into a file or into entries",
    "nis": "Postroad has none: use a file, LDAP or a database",
    "netinfo": "Postroad has none: use a file, LDAP or a database",
}


def ours(name: str) -> str:
    """The advice for a parameter of Postfix; "" if `name` is none that is known here."""
    if (advice := _NEEDLESS.get(name) or _NONE.get(name)) is not None:
        return f"This is a setting of Postfix. {advice}"
    return f"This is a setting of Postfix. In Postroad it is {_OURS[name]}" if name in _OURS else ""


def of_table(name: str) -> str:
    """The advice for a parameter of Postfix's files for SQL and LDAP in a [[map]]; "" if `name` is none."""
    return f"This is a setting of a table of Postfix. {_TABLES[name]}" if name in _TABLES else ""


def kind(name: object) -> str:
    """The advice for a type of Postfix's tables in the place of a kind of map; "" if `name` is none."""
    return f"This is a type of tables of Postfix. {_KINDS[name]}" if isinstance(name, str) and name in _KINDS else ""


def named() -> tuple[tuple[str, str], ...]:
    """Each known parameter with ours, for tests and documents."""
    return tuple(_OURS.items())
