//! The built-in bare-metal guest.
