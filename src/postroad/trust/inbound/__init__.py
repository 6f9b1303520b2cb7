"""Reports of others about our mail, read: DMARC aggregate and failure reports, TLS reports, complaints.

No I/O. `report_mail.read` takes a whole mail and gives what it holds as values (`values`).
"""
