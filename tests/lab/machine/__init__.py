"""What the tests need of the machine: namespaces, privileges, system calls."""
