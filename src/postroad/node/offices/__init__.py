"""What is counted or decided once for the whole node, in the supervisor, and how a worker asks for it."""
