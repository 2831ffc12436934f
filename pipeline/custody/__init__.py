"""Where the unsafe side lies, whether it is kept as it must be, and how it is got rid of.

``kinds`` says what is unsafe, by path and by content; ``cache`` the same of DVC's cache, whose
files have no names; ``scan`` finds all of it; ``check`` and ``purge`` are the commands.
"""
