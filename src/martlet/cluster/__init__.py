"""How the machines of a cluster know each other: certificates of one authority, and tokens to get one."""
