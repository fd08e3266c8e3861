"""What Linux says about TCP: one module for each kernel interface, under the kernel's own names."""
