//! Error records: writing, decoding and layout.

mod area;
mod decoder;
mod linux_model;
mod layout;
mod round_trip;
mod sections;
