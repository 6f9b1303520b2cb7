"""Real programs as peers: each a class that starts one private instance with its own folder and ports, and stops it.

What always holds: everything listens on loopback only, on ports that no other test of any run on this machine has;
only processes started here are ended, by their ids; what a program logged is at hand for the message of a failed test.
"""
