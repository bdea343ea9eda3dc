"""Control: the management API, deploys, and what keeps the platform as people asked for it."""
