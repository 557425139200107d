//! Backing memory of a guest and the way between guest physical and host virtual addresses.
