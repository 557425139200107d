//! Error records: writing, decoding and layout.

mod area;
mod decoder;
mod layout;
mod linux_model;
mod round_trip;
mod sections;
