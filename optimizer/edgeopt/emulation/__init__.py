"""Running the real runtime on another kind of CPU, which QEMU translates: certification for a board, without it."""
