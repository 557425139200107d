//! vCPU threads, run loop, typed exits, registers.
