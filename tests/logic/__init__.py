"""What must be true of a session after each thing that can happen in it: whole tables of cases, all in memory."""
