"""The scripted peer: packets, and the TUN device that carries them."""
