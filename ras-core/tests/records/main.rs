//! Error records: writing, decoding and layout.

mod area;
mod cper_bytes;
mod cxl_sections;
mod decoder;
mod descriptions;
mod encoder;
mod every_section;
mod files;
mod layout;
mod linux_model;
mod printed;
mod round_trip;
mod section_bytes;
mod sections;
