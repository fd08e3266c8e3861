"""What is wrong and why: rules from a View to findings, one small module per family."""
