"""What can be believed of a message: SPF, DKIM, DMARC, ARC and what belongs to them. No I/O: the DNS is handed in."""
