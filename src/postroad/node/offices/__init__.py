"""The offices: they count or decide something once for the whole node, in the supervisor; and how a worker asks
them."""
