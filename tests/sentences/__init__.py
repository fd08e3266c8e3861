"""Every sentence that a rule can say, with a scene in which it is proved, and one in which it would be false."""
