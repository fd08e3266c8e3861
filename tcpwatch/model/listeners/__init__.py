"""Listening sockets and their two queues."""
