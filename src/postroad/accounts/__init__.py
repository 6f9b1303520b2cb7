"""Who may log in: the users file, tokens, Dovecot and a function of the operator, behind one `Authenticator`."""
