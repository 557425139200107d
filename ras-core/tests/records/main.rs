//! Error records: what is written, what is read, and where they lie.

mod area;
mod decoder;
mod judgement;
mod layout;
mod round_trip;
mod sections;
