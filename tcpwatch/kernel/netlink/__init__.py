"""NETLINK_SOCK_DIAG: the socket dump, its decoding, and destroy events."""
