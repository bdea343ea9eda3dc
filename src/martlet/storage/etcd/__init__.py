"""The store of many machines: an etcd cluster, 3.4 or newer, asked by its JSON gateway (see decision 16)."""
