"""The sockets of a sample, joined to the sample before: rows, throughput, totals."""
