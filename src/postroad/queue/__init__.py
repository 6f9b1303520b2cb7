"""When and what next: retry schedule, fair order, concurrency per destination, back-off."""
