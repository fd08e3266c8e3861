"""The screen of one listener: what waits in its two queues."""
