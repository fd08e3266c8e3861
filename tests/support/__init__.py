"""What several tests share: made-up samples and views, byte-exact fakes of the kernel."""
